"""Inception-ResNet-v1 (Szegedy et al. 2016), FaceNet's backbone, in facenet-pytorch's parameter names.

The embedding is not divided by its length. Only the 3x3 and 1x7 branches have padding, as in the paper.
Crops are 160x160.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from efquantface.backbones.blocks import Times
from efquantface.graph import ops

REPEATS = (5, 10, 5)
_SCALES = (0.17, 0.10, 0.20)  # of residual branches, by kind
_EPS = 1e-3


class _Conv(nn.Module):
    """Convolution without bias, BatchNorm, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        pad: int = 0,
    ) -> None:
        super().__init__()
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        sides = (pad * (size[0] > 1), pad * (size[1] > 1))
        self.conv = nn.Conv2d(inputs, outputs, size, stride, sides, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=_EPS)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class _Branches(nn.Module):
    """Branches of one input, concatenated along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.count = len(branches)
        for index, branch in enumerate(branches):
            self.add_module(f"branch{index}", branch)
        self.cat = ops.Concat(1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cat(*(self.get_submodule(f"branch{i}")(x) for i in range(self.count)))
        return out


class _Residual(_Branches):
    """Branches brought to ``width`` channels by a 1x1 convolution, scaled, and added to the input."""

    def __init__(
        self, width: int, inner: int, scale: float, *branches: nn.Module, relu: bool = True
    ) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(inner, width, 1)
        self.times = Times(scale)
        self.relu: nn.Module = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.times(self.conv2d(super().forward(x))) + x)
        return out


def _block35(scale: float) -> nn.Module:
    return _Residual(
        256,
        96,
        scale,
        _Conv(256, 32),
        nn.Sequential(_Conv(256, 32), _Conv(32, 32, 3, pad=1)),
        nn.Sequential(_Conv(256, 32), _Conv(32, 32, 3, pad=1), _Conv(32, 32, 3, pad=1)),
    )


def _block17(scale: float) -> nn.Module:
    across = (_Conv(128, 128, (1, 7), pad=3), _Conv(128, 128, (7, 1), pad=3))
    return _Residual(896, 256, scale, _Conv(896, 128), nn.Sequential(_Conv(896, 128), *across))


def _block8(scale: float, relu: bool = True) -> nn.Module:
    across = (_Conv(192, 192, (1, 3), pad=1), _Conv(192, 192, (3, 1), pad=1))
    branches = (_Conv(1792, 192), nn.Sequential(_Conv(1792, 192), *across))
    return _Residual(1792, 384, scale, *branches, relu=relu)


class InceptionResnetV1(nn.Module):
    """Crops (B,3,160,160), normalized, to embeddings (B,embedding_size).

    Args:
        embedding_size: number of values of the embedding.
        repeats: number of residual blocks of each of the three kinds.
    """

    def __init__(self, embedding_size: int = 512, repeats: tuple[int, int, int] = REPEATS) -> None:
        super().__init__()
        self.conv2d_1a = _Conv(3, 32, 3, 2)
        self.conv2d_2a, self.conv2d_2b = _Conv(32, 32, 3), _Conv(32, 64, 3, pad=1)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b, self.conv2d_4a = _Conv(64, 80), _Conv(80, 192, 3)
        self.conv2d_4b = _Conv(192, 256, 3, 2)
        self.repeat_1 = nn.Sequential(*(_block35(_SCALES[0]) for _ in range(repeats[0])))
        self.mixed_6a = _Branches(
            _Conv(256, 384, 3, 2),
            nn.Sequential(_Conv(256, 192), _Conv(192, 192, 3, pad=1), _Conv(192, 256, 3, 2)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_2 = nn.Sequential(*(_block17(_SCALES[1]) for _ in range(repeats[1])))
        self.mixed_7a = _Branches(
            nn.Sequential(_Conv(896, 256), _Conv(256, 384, 3, 2)),
            nn.Sequential(_Conv(896, 256), _Conv(256, 256, 3, 2)),
            nn.Sequential(_Conv(896, 256), _Conv(256, 256, 3, pad=1), _Conv(256, 256, 3, 2)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_3 = nn.Sequential(*(_block8(_SCALES[2]) for _ in range(repeats[2])))
        self.block8 = _block8(1.0, relu=False)
        self.avgpool_1a, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.last_linear = nn.Linear(1792, embedding_size, bias=False)
        self.last_bn = nn.BatchNorm1d(embedding_size, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.repeat_2(self.mixed_6a(self.repeat_1(x)))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        out: Tensor = self.last_bn(self.last_linear(self.flatten(self.avgpool_1a(x))))
        return out


def inception_resnet_from(tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network that a checkpoint's names and shapes describe.

    Raises:
        KeyError: the checkpoint has no ``last_linear.weight``.
    """
    first, second, third = (
        len({name.split(".")[1] for name in tensors if name.startswith(f"repeat_{n}.")})
        for n in (1, 2, 3)
    )
    return InceptionResnetV1(tensors["last_linear.weight"].shape[0], (first, second, third))
