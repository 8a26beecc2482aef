"""GhostFaceNet (Alansari et al. 2023) on GhostNetV2 (Tang et al. 2022), in ellzaf_ml's parameter names.

A ghost module computes half of its channels by a convolution, and the other half from these by a
depthwise convolution. In later blocks, long-range attention over a halved map weights both halves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from efquantface.backbones.blocks import Times
from efquantface.graph import ops

SIZE = 112


@dataclass(frozen=True)
class GhostBlock:
    """One bottleneck.

    Attributes:
        inner, outputs: channels between and behind its two ghost modules.
        kernel: of its depthwise convolutions.
        stride: 1 or 2.
        reduced: channels inside squeeze-and-excitation; 0 for none.
        attention: whether the first ghost module has long-range attention.
    """

    inner: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    reduced: int = 0
    attention: bool = False


def _act(there: bool) -> nn.Module:
    return nn.PReLU() if there else nn.Identity()


class _Ghost(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, act: bool, attention: int = 0) -> None:
        """``attention`` is the height and width of the attention's map; 0 for none."""
        super().__init__()
        half = outputs // 2
        self.primary_conv = nn.Sequential(
            nn.Conv2d(inputs, half, 1, bias=False), nn.BatchNorm2d(half), _act(act)
        )
        self.cheap_operation = nn.Sequential(
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half), _act(act)
        )
        self.cat = ops.Concat(1)
        self.attention = attention > 0
        if self.attention:
            self.pool, self.gate = nn.AvgPool2d(2, 2), nn.Sigmoid()
            self.short_conv = nn.Sequential(
                *(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
                *_along(outputs, (1, 5)),
                *_along(outputs, (5, 1)),
            )
            nearest = [i * (attention // 2) // attention for i in range(attention)]
            self.rows, self.columns = ops.Pick(2, nearest), ops.Pick(3, nearest)
            self.multiply = ops.Multiply()

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary_conv(x)
        out: Tensor = self.cat(first, self.cheap_operation(first))
        if self.attention:
            weights = self.gate(self.short_conv(self.pool(x)))
            out = self.multiply(out, self.columns(self.rows(weights)))
        return out


def _along(channels: int, kernel: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """A depthwise convolution along one axis, and its BatchNorm."""
    pads = (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(channels, channels, kernel, 1, pads, groups=channels, bias=False)
    return conv, nn.BatchNorm2d(channels)


class _Excite(nn.Module):
    """Squeeze-and-excitation with PReLU and a hard sigmoid."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.pool, self.act1 = ops.GlobalAvgPool(), nn.PReLU()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Sequential(Times(1, 3), nn.ReLU6(), Times(1 / 6))
        self.multiply = ops.Multiply()

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(self.conv_expand(self.act1(self.conv_reduce(self.pool(x)))))
        out: Tensor = self.multiply(x, weights)
        return out


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, block: GhostBlock, size: int) -> None:
        super().__init__()
        inner, k, pad = block.inner, block.kernel, block.kernel // 2
        attention = size if block.attention else 0
        self.ghost1 = _Ghost(inputs, inner, act=True, attention=attention)
        self.conv_dw: nn.Module = nn.Identity()
        self.bn_dw: nn.Module = nn.Identity()
        if block.stride > 1:
            self.conv_dw = nn.Conv2d(inner, inner, k, block.stride, pad, groups=inner, bias=False)
            self.bn_dw = nn.BatchNorm2d(inner)
        self.se: nn.Module = _Excite(inner, block.reduced) if block.reduced else nn.Identity()
        self.ghost2 = _Ghost(inner, block.outputs, act=False)
        self.shortcut: nn.Module = nn.Identity()
        if block.stride > 1 or inputs != block.outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, inputs, k, block.stride, pad, groups=inputs, bias=False),
                nn.BatchNorm2d(inputs),
                nn.Conv2d(inputs, block.outputs, 1, bias=False),
                nn.BatchNorm2d(block.outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        branch = self.ghost2(self.se(self.bn_dw(self.conv_dw(self.ghost1(x)))))
        out: Tensor = branch + self.shortcut(x)
        return out


class _Last(nn.Module):
    """The 1x1 convolution behind the bottlenecks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(outputs), nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act1(self.bn1(self.conv(x)))
        return out


class _Head(nn.Module):
    """A depthwise convolution over the whole map, a 1x1 convolution, and an optional linear layer."""

    def __init__(self, channels: int, size: int, inner: int, embedding_size: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, size, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv, self.flatten = nn.Conv2d(channels, inner, 1, bias=False), nn.Flatten()
        self.bn2 = nn.BatchNorm1d(inner)
        self.linear: nn.Module = (
            nn.Linear(inner, embedding_size) if embedding_size else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.flatten(self.conv(self.bn1(self.conv_dw(x))))
        out: Tensor = self.linear(self.bn2(x))
        return out


class GhostFaceNet(nn.Module):
    """Crops (B,3,112,112), normalized, to embeddings (B,linear or head).

    Args:
        width: channels of the stem.
        stages: bottlenecks, by stage.
        last: channels of the 1x1 convolution behind the bottlenecks.
        head: channels behind the depthwise convolution over the whole map.
        linear: outputs of a linear layer at the end; 0 for none.
    """

    def __init__(
        self,
        width: int,
        stages: Sequence[Sequence[GhostBlock]],
        last: int,
        head: int = 512,
        linear: int = 0,
    ) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(width), nn.PReLU()
        size, made = (SIZE + 1) // 2, []
        for stage in stages:
            blocks = []
            for block in stage:
                blocks.append(_Bottleneck(width, block, size))
                width, size = block.outputs, -(-size // block.stride)
            made.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*made, nn.Sequential(_Last(width, last)))
        self.classifier = _Head(last, size, head, linear)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.blocks(self.act1(self.bn1(self.conv_stem(x)))))
        return out


def ghostfacenet_from(tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network that a checkpoint's names and shapes describe.

    Raises:
        KeyError: a tensor is missing.
    """
    places = sorted(
        {
            (int(found[1]), int(found[2]))
            for found in (re.match(r"blocks\.(\d+)\.(\d+)\.ghost1\.", name) for name in tensors)
            if found
        }
    )
    stages: dict[int, list[GhostBlock]] = {}
    for stage, index in places:
        stages.setdefault(stage, []).append(_block(tensors, f"blocks.{stage}.{index}."))
    return GhostFaceNet(
        tensors["conv_stem.weight"].shape[0],
        list(stages.values()),
        tensors["classifier.conv.weight"].shape[1],
        tensors["classifier.conv.weight"].shape[0],
        tensors["classifier.linear.weight"].shape[0]
        if "classifier.linear.weight" in tensors
        else 0,
    )


def _block(tensors: Mapping[str, Tensor], front: str) -> GhostBlock:
    strided = f"{front}conv_dw.weight" in tensors
    depthwise = f"{front}{'conv_dw' if strided else 'shortcut.0'}.weight"
    reduce = f"{front}se.conv_reduce.weight"
    return GhostBlock(
        2 * tensors[f"{front}ghost1.primary_conv.0.weight"].shape[0],
        2 * tensors[f"{front}ghost2.primary_conv.0.weight"].shape[0],
        tensors[depthwise].shape[-1] if depthwise in tensors else 3,
        2 if strided else 1,
        tensors[reduce].shape[0] if reduce in tensors else 0,
        f"{front}ghost1.short_conv.0.weight" in tensors,
    )
