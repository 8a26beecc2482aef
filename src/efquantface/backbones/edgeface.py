"""EdgeFace (George et al. 2024), an EdgeNeXt (Maaz et al. 2022) for faces: convolution and attention.

A stage has convolution blocks: a depthwise convolution, LayerNorm, two linear layers over the channels.
From the second stage on it ends in a block of transposed attention, which mixes channels. Linear layers
of EdgeFace may be products of two narrow ones (low rank).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from efquantface.graph import ops

_EPS = 1e-6
_FOURIER, _TEMPERATURE = 32, 10000.0
_EXPANSION = 4
_STEM = 4  # kernel and stride of the stem's convolution


@dataclass(frozen=True)
class EdgeFaceConfig:
    """A variant of EdgeFace. The defaults are EdgeFace-XS.

    Attributes:
        widths, depths: channels and blocks, by stage.
        attention: stages that end in an attention block.
        scales: into how many parts attention blocks split the channels, by stage.
        kernels: of the depthwise convolutions, by stage.
        heads: of the attention.
        rank: width between the two factors of a linear layer, as a share of the smaller of its inputs
            and outputs; 0 for one matrix.
    """

    embedding_size: int = 512
    widths: tuple[int, ...] = (32, 64, 100, 192)
    depths: tuple[int, ...] = (3, 3, 9, 3)
    attention: tuple[bool, ...] = (False, True, True, True)
    scales: tuple[int, ...] = (2, 2, 3, 4)
    kernels: tuple[int, ...] = (3, 5, 7, 9)
    heads: int = 4
    rank: float = 0.0


class LowRankLinear(nn.Module):
    """``x A B + b``. Between the factors there are ``rank`` times the smaller width values."""

    def __init__(self, inputs: int, outputs: int, rank: float) -> None:
        super().__init__()
        inner = _inner(inputs, outputs, rank)
        self.linear1 = nn.Linear(inputs, inner, bias=False)
        self.linear2 = nn.Linear(inner, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(self.linear1(x))
        return out


def _inner(inputs: int, outputs: int, rank: float) -> int:
    return max(2, int(min(inputs, outputs) * rank))


def _linear(inputs: int, outputs: int, rank: float) -> nn.Module:
    return LowRankLinear(inputs, outputs, rank) if rank else nn.Linear(inputs, outputs)


class _LayerNorm2d(nn.Module):
    """LayerNorm over the channels of (B,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.last, self.norm = ops.Transpose((0, 2, 3, 1)), ops.LayerNorm(channels, _EPS)
        self.back = ops.Transpose((0, 3, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.back(self.norm(self.last(x)))
        return out


class _Mlp(nn.Module):
    def __init__(self, channels: int, rank: float) -> None:
        super().__init__()
        self.fc1 = _linear(channels, _EXPANSION * channels, rank)
        self.act = ops.Gelu()
        self.fc2 = _linear(_EXPANSION * channels, channels, rank)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class _ConvBlock(nn.Module):
    """Depthwise convolution, LayerNorm, two linear layers over the channels, and the input added."""

    def __init__(self, channels: int, kernel: int, rank: float) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.last, self.norm = ops.Transpose((0, 2, 3, 1)), ops.LayerNorm(channels, _EPS)
        self.mlp = _Mlp(channels, rank)
        self.gamma = ops.Scale((channels,))
        self.back, self.add = ops.Transpose((0, 3, 1, 2)), ops.Add()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.gamma(self.mlp(self.norm(self.last(self.conv_dw(x)))))
        out: Tensor = self.add(x, self.back(branch))
        return out


class PositionEncoding(nn.Module):
    """Adds a projection of the sines and cosines of each position (constant for a map's size)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(2 * _FOURIER, channels, 1)

    def encoding(self, height: int, width: int) -> Tensor:
        """The constant (C,height,width) that is added."""
        rows = torch.arange(1, height + 1).float()[:, None].expand(height, width)
        columns = torch.arange(1, width + 1).float()[None].expand(height, width)
        index = torch.arange(_FOURIER).float()
        wavelength = _TEMPERATURE ** (2 * torch.div(index, 2, rounding_mode="floor") / _FOURIER)
        parts = []
        for position, last in ((rows, height), (columns, width)):
            phase = (position / (last + _EPS) * 2 * math.pi)[..., None] / wavelength
            pairs = torch.stack((phase[..., 0::2].sin(), phase[..., 1::2].cos()), dim=-1)
            parts.append(pairs.flatten(2))
        fourier = torch.cat(parts, dim=2).permute(2, 0, 1)
        projected: Tensor = self.token_projection(fourier[None])[0]
        return projected

    def canonical(self, shape: tuple[int, ...]) -> ops.Shift:
        """The operator that it is for maps (N,C,H,W)."""
        shift = ops.Shift(shape[1:])
        with torch.no_grad():
            shift.bias.copy_(self.encoding(shape[2], shape[3]))
        return shift

    def forward(self, x: Tensor) -> Tensor:
        return x + self.encoding(x.shape[2], x.shape[3])


class _TransposedAttention(nn.Module):
    """Attention between the channels of (B,N,C) (El-Nouby et al. 2021, eq. 2)."""

    def __init__(self, channels: int, places: int, heads: int, rank: float) -> None:
        super().__init__()
        each = channels // heads
        self.qkv = _linear(channels, 3 * channels, rank)
        self.split = ops.Reshape((places, 3 * heads, each))
        self.channels_first = ops.Transpose((0, 2, 3, 1))
        self.query = ops.Slice(1, 0, heads)
        self.key = ops.Slice(1, heads, 2 * heads)
        self.value = ops.Slice(1, 2 * heads, 3 * heads)
        self.unit_query, self.unit_key = ops.L2Normalize(1e-12), ops.L2Normalize(1e-12)
        self.turn = ops.Transpose((0, 1, 3, 2))
        self.similarity, self.weigh = ops.MatMul(), ops.MatMul()
        self.temperature = ops.Scale((heads, 1, 1))
        self.softmax = ops.Softmax()
        self.places_first = ops.Transpose((0, 3, 1, 2))
        self.join = ops.Reshape((places, channels))
        self.proj = _linear(channels, channels, rank)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.channels_first(self.split(self.qkv(x)))
        query, key = self.unit_query(self.query(parts)), self.unit_key(self.key(parts))
        attention = self.softmax(self.temperature(self.similarity(query, self.turn(key))))
        mixed = self.weigh(attention, self.value(parts))
        out: Tensor = self.proj(self.join(self.places_first(mixed)))
        return out


class _AttentionBlock(nn.Module):
    """Depthwise convolutions on parts of the channels, in a chain, and attention."""

    def __init__(
        self, channels: int, size: int, scales: int, heads: int, rank: float, position: bool
    ) -> None:
        super().__init__()
        width = -(-channels // scales) if scales > 1 else channels
        starts = [width * i for i in range(scales)]
        self.parts = nn.ModuleList(
            ops.Slice(1, start, min(start + width, channels)) for start in starts
        )
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in starts[:-1]
        )
        self.sums = nn.ModuleList(ops.Add() for _ in starts[1:-1])
        self.concat = ops.Concat(1)
        self.pos_embd: nn.Module = PositionEncoding(channels) if position else nn.Identity()
        places = size * size
        self.rows, self.places_first = ops.Reshape((channels, places)), ops.Transpose((0, 2, 1))
        self.norm_xca = ops.LayerNorm(channels, _EPS)
        self.xca = _TransposedAttention(channels, places, heads, rank)
        self.gamma_xca, self.add_xca = ops.Scale((channels,)), ops.Add()
        self.norm, self.mlp = ops.LayerNorm(channels, _EPS), _Mlp(channels, rank)
        self.gamma = ops.Scale((channels,))
        self.channels_first = ops.Transpose((0, 2, 1))
        self.map, self.add = ops.Reshape((channels, size, size)), ops.Add()

    def forward(self, x: Tensor) -> Tensor:
        parts = [part(x) for part in self.parts]
        done, at = [], parts[0]
        for index, conv in enumerate(self.convs):
            if index:
                at = self.sums[index - 1](at, parts[index])
            at = conv(at)
            done.append(at)
        mixed = self.pos_embd(self.concat(*done, parts[-1]))
        rows = self.places_first(self.rows(mixed))
        rows = self.add_xca(rows, self.gamma_xca(self.xca(self.norm_xca(rows))))
        branch = self.gamma(self.mlp(self.norm(rows)))
        out: Tensor = self.add(x, self.map(self.channels_first(branch)))
        return out


class _Stage(nn.Module):
    def __init__(self, config: EdgeFaceConfig, index: int, size: int) -> None:
        super().__init__()
        width = config.widths[index]
        self.downsample: nn.Module = nn.Identity()
        if index:
            before = config.widths[index - 1]
            self.downsample = nn.Sequential(_LayerNorm2d(before), nn.Conv2d(before, width, 2, 2))
        count = config.depths[index] - config.attention[index]
        blocks: list[nn.Module] = [
            _ConvBlock(width, config.kernels[index], config.rank) for _ in range(count)
        ]
        if config.attention[index]:
            first = not any(config.attention[:index])
            scales = config.scales[index]
            blocks.append(_AttentionBlock(width, size, scales, config.heads, config.rank, first))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.downsample(x))
        return out


class _Head(nn.Module):
    def __init__(self, width: int, embedding_size: int) -> None:
        super().__init__()
        self.pool, self.norm = ops.GlobalAvgPool(), _LayerNorm2d(width)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(width, embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.flatten(self.norm(self.pool(x))))
        return out


class EdgeFace(nn.Module):
    """Crops (B,3,112,112), normalized, to embeddings (B,embedding_size)."""

    def __init__(self, config: EdgeFaceConfig) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, config.widths[0], _STEM, _STEM), _LayerNorm2d(config.widths[0])
        )
        size, stages = 112 // _STEM, []
        for index in range(len(config.widths)):
            size = size // 2 if index else size
            stages.append(_Stage(config, index, size))
        self.stages = nn.Sequential(*stages)
        self.head = _Head(config.widths[-1], config.embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.head(self.stages(self.stem(x)))
        return embedding


_RENAMED = (
    (r"\bgamma$", "gamma.weight"),
    (r"\bgamma_xca$", "gamma_xca.weight"),
    (r"\btemperature$", "temperature.weight"),
    (r"^(stem\.1|.*\.downsample\.0|head\.norm)\.(weight|bias)$", r"\1.norm.\2"),
)


def edgeface_name(name: str) -> str:
    """From the authors' name of a tensor to ours."""
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def edgeface_from(tensors: Mapping[str, Tensor]) -> nn.Module:
    """The variant that renamed tensors describe by their names and shapes.

    Raises:
        KeyError: a tensor that every variant has is missing.
    """
    stages = range(len({n.split(".")[1] for n in tensors if n.startswith("stages.")}))
    blocks = [
        {n.split(".")[3] for n in tensors if n.startswith(f"stages.{i}.blocks.")} for i in stages
    ]
    last = [f"stages.{i}.blocks.{len(blocks[i]) - 1}" for i in stages]
    attention = tuple(f"{name}.gamma_xca.weight" in tensors for name in last)
    heads = next(
        (v.shape[0] for n, v in tensors.items() if n.endswith("xca.temperature.weight")), 1
    )
    return EdgeFace(
        EdgeFaceConfig(
            embedding_size=tensors["head.fc.weight"].shape[0],
            widths=tuple(tensors[f"{name}.norm.weight"].shape[0] for name in last),
            depths=tuple(len(b) for b in blocks),
            attention=attention,
            scales=tuple(
                1 + len({n.split(".")[5] for n in tensors if n.startswith(f"{name}.convs.")})
                for name in last
            ),
            kernels=tuple(
                tensors[f"stages.{i}.blocks.0.conv_dw.weight"].shape[2]
                if f"stages.{i}.blocks.0.conv_dw.weight" in tensors
                else 3
                for i in stages
            ),
            heads=heads,
            rank=_rank(tensors),
        )
    )


def _rank(tensors: Mapping[str, Tensor]) -> float:
    """The rank, a whole number of hundredths, that gives the inner widths of all low-rank layers."""
    widths = []
    for name, first in tensors.items():
        second = tensors.get(name.replace(".linear1.", ".linear2."))
        if name.endswith(".linear1.weight") and second is not None:
            widths.append((first.shape[1], second.shape[0], first.shape[0]))
    if not widths:
        return 0.0
    shares = (hundredths / 100 for hundredths in range(1, 101))
    return next((s for s in shares if all(_inner(i, o, s) == n for i, o, n in widths)), 1.0)
