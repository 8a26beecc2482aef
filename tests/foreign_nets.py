"""Small networks whose modules nest, and so name their tensors, as the field's repositories do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import Sequential

# --- AdaFace ---------------------------------------------------------------------------------


class _IrUnit(nn.Module):
    def __init__(self, inputs: int, depth: int, stride: int, se: bool, five: bool = False) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != depth:
            self.shortcut_layer = Sequential(
                nn.Conv2d(inputs, depth, 1, stride, bias=False), nn.BatchNorm2d(depth)
            )
        self.res_layer = Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, depth, 3, 1, 1, bias=False),
            *([] if five else [nn.BatchNorm2d(depth)]),
            nn.PReLU(depth),
            nn.Conv2d(depth, depth, 3, stride, 1, bias=False),
            nn.BatchNorm2d(depth),
        )
        if se:
            self.res_layer.add_module("5" if five else "se_block", _Se(depth))

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class _Se(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class AdaFaceIr18(nn.Module):
    """IR-18 or IR-SE-18; gives the unit embedding and its length, as AdaFace does.

    With ``five`` its blocks are InsightFace_Pytorch's, of five units.
    """

    def __init__(self, se: bool = False, five: bool = False) -> None:
        super().__init__()
        self.input_layer = Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        units, inputs = [], 64
        for depth in (64, 128, 256, 512):
            units += [_IrUnit(inputs, depth, 2, se, five), _IrUnit(depth, depth, 1, se, five)]
            inputs = depth
        self.body = Sequential(*units)
        self.output_layer = Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * 49, 512),
            nn.BatchNorm1d(512, affine=five),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.output_layer(self.body(self.input_layer(x)))
        length = torch.norm(x, 2, 1, True)
        return x / length, length


# --- MobileFaceNets --------------------------------------------------------------------------


class _Layers(nn.Module):
    """A module whose only child is called ``layers``, as in arcface_torch."""

    def __init__(self, *layers: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.layers, self.residual = Sequential(*layers), residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def _conv(
    i: int, o: int, k: int = 1, s: int = 1, p: int = 0, g: int = 1, act: bool = True
) -> _Layers:
    layers = [nn.Conv2d(i, o, k, s, p, groups=g, bias=False), nn.BatchNorm2d(o)]
    return _Layers(*layers, *([nn.PReLU(o)] if act else []))


def _bottleneck(i: int, o: int, g: int, s: int, residual: bool) -> _Layers:
    return _Layers(_conv(i, g), _conv(g, g, 3, s, 1, g), _conv(g, o, act=False), residual=residual)


class ArcFaceMbf(nn.Module):
    """MobileFaceNet of arcface_torch."""

    def __init__(self, blocks: tuple[int, ...] = (1, 4, 6, 2), scale: int = 2) -> None:
        super().__init__()
        a, b = 64 * scale, 128 * scale

        def stage(width: int, count: int, inner: int) -> _Layers:
            return _Layers(*(_bottleneck(width, width, inner, 1, True) for _ in range(count)))

        second = _conv(a, a, 3, 1, 1, 64) if blocks[0] == 1 else stage(a, blocks[0], 128)
        self.layers = nn.ModuleList(
            [
                _conv(3, a, 3, 2, 1),
                second,
                _bottleneck(a, a, 128, 2, False),
                stage(a, blocks[1], 128),
                _bottleneck(a, b, 256, 2, False),
                stage(b, blocks[2], 256),
                _bottleneck(b, b, 512, 2, False),
                stage(b, blocks[3], 256),
            ]
        )
        self.conv_sep = _conv(b, 512)
        self.features = _Layers(
            _conv(512, 512, 7, g=512, act=False),
            nn.Flatten(),
            nn.Linear(512, 512, bias=False),
            nn.BatchNorm1d(512),
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))


class _Block(nn.Module):
    """``conv``, ``bn`` and perhaps ``prelu``, as in InsightFace_Pytorch."""

    def __init__(self, i: int, o: int, k: int, s: int, p: int, g: int, act: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(i, o, k, s, p, groups=g, bias=False)
        self.bn = nn.BatchNorm2d(o)
        self.prelu = nn.PReLU(o) if act else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.prelu is None else self.prelu(x)


class _DepthWise(nn.Module):
    def __init__(self, i: int, o: int, g: int, s: int, residual: bool) -> None:
        super().__init__()
        self.conv = _Block(i, g, 1, 1, 0, 1, True)
        self.conv_dw = _Block(g, g, 3, s, 1, g, True)
        self.project = _Block(g, o, 1, 1, 0, 1, False)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.conv_dw(self.conv(x)))
        return x + out if self.residual else out


class _Repeated(nn.Module):
    def __init__(self, width: int, count: int, inner: int) -> None:
        super().__init__()
        self.model = Sequential(*(_DepthWise(width, width, inner, 1, True) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class _Gdc(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv_6_dw = _Block(512, 512, 7, 1, 0, 512, False)
        self.linear = nn.Linear(512, size, bias=False)
        self.bn = nn.BatchNorm1d(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.linear(torch.flatten(self.conv_6_dw(x), 1)))


class QuantFaceMobileFaceNet(nn.Module):
    """MobileFaceNet as in QuantFace's and face.evoLVe's repositories."""

    def __init__(self, size: int = 128) -> None:
        super().__init__()
        self.conv1 = _Block(3, 64, 3, 2, 1, 1, True)
        self.conv2_dw = _Block(64, 64, 3, 1, 1, 64, True)
        self.conv_23 = _DepthWise(64, 64, 128, 2, False)
        self.conv_3 = _Repeated(64, 4, 128)
        self.conv_34 = _DepthWise(64, 128, 256, 2, False)
        self.conv_4 = _Repeated(128, 6, 256)
        self.conv_45 = _DepthWise(128, 128, 512, 2, False)
        self.conv_5 = _Repeated(128, 2, 256)
        self.conv_6_sep = _Block(128, 512, 1, 1, 0, 1, True)
        self.output_layer = _Gdc(size)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x
