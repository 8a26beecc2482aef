"""LightCNN (Wu et al. 2018) on grey 128x128 crops: each layer gives the maximum of pairs of channels.

The maximum of two halves, ``max(a, b)``, is ``b + relu(a - b)``. The difference ``a - b`` of a
convolution's halves is a convolution, too. So it is stored, in operators with integer forms. The first
layer converts RGB crops to grey. Grey crops have three equal channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_GREY = (0.299, 0.587, 0.114)  # of RGB (ITU-R BT.601)
SIZE = 128
_ORDER = (
    *("pool1", "block1", "group1", "pool2", "block2", "group2", "pool3"),
    *("block3", "group3", "block4", "group4", "pool4"),
)


class _Max(nn.Module):
    """The maximum of both halves of a layer's outputs."""

    def __init__(self, difference: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.difference, self.second, self.relu = difference, second, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(x) + self.relu(self.difference(x))
        return out


def _conv(inputs: int, outputs: int, kernel: int = 3, pad: int = 1) -> _Max:
    return _Max(*(nn.Conv2d(inputs, outputs, kernel, padding=pad) for _ in range(2)))


class _Group(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_a, self.conv = _conv(inputs, inputs, 1, 0), _conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.conv_a(x))
        return out


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(channels, channels), _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(x)) + x
        return out


class _BothPools(nn.Module):
    """The sum of max pooling and average pooling, as in the second version."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.average = nn.MaxPool2d(2), nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.largest(x) + self.average(x)
        return out


class LightCnn29(nn.Module):
    """Crops (B,3,128,128) of 0..1 to embeddings (B,embedding_size).

    Args:
        embedding_size: number of values of the embedding.
        blocks: number of residual blocks in front of each of the four groups.
        second: the second version: poolings add the average, and the embedding layer is linear.
    """

    def __init__(
        self,
        embedding_size: int = 256,
        blocks: tuple[int, ...] = (1, 2, 3, 4),
        *,
        second: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(3, 48, 5, 2)
        for index, (inputs, outputs) in enumerate(((48, 96), (96, 192), (192, 128), (128, 128)), 1):
            repeated = (_Residual(inputs) for _ in range(blocks[index - 1]))
            self.add_module(f"block{index}", nn.Sequential(*repeated))
            self.add_module(f"group{index}", _Group(inputs, outputs))
            pool = _BothPools() if second else nn.MaxPool2d(2, ceil_mode=True)
            self.add_module(f"pool{index}", pool)
        self.flatten = nn.Flatten()
        size = (128 * (SIZE // 16) ** 2, embedding_size)
        self.fc: nn.Module = (
            nn.Linear(*size) if second else _Max(nn.Linear(*size), nn.Linear(*size))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for name in _ORDER:
            x = self.get_submodule(name)(x)
        out: Tensor = self.fc(self.flatten(x))
        return out


class LightCnn9(nn.Module):
    """Crops (B,3,128,128) of 0..1 to embeddings (B,embedding_size)."""

    def __init__(self, embedding_size: int = 256) -> None:
        super().__init__()
        pools = [nn.MaxPool2d(2, ceil_mode=True) for _ in range(4)]
        groups = [_Group(48, 96), _Group(96, 192), _Group(192, 128), _Group(128, 128)]
        self.features = nn.Sequential(
            *(_conv(3, 48, 5, 2), pools[0], groups[0], pools[1], groups[1], pools[2]),
            *(groups[2], groups[3], pools[3]),
        )
        self.flatten = nn.Flatten()
        size = (128 * (SIZE // 16) ** 2, embedding_size)
        self.fc1 = _Max(nn.Linear(*size), nn.Linear(*size))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc1(self.flatten(self.features(x)))
        return out


def lightcnn_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From LightCNN's own tensors to those of the layers here."""
    result: dict[str, Tensor] = {}
    for name, value in tensors.items():
        match = re.fullmatch(r"(.+)\.filter\.(weight|bias)", name)
        if match is None:
            result[name] = value
            continue
        first, second = value.chunk(2)
        result[f"{match[1]}.difference.{match[2]}"] = first - second
        result[f"{match[1]}.second.{match[2]}"] = second
    for name, value in result.items():
        if value.dim() == 4 and value.shape[1] == 1:
            result[name] = value * torch.tensor(_GREY).view(1, 3, 1, 1)
    return result


def lightcnn_from(tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network that a checkpoint's names and shapes describe.

    Raises:
        KeyError: the checkpoint has no last layer.
    """
    if any(name.startswith("features.") for name in tensors):
        return LightCnn9(tensors["fc1.second.weight"].shape[0])
    blocks = tuple(
        len({name.split(".")[1] for name in tensors if name.startswith(f"block{n}.")})
        for n in (1, 2, 3, 4)
    )
    second = "fc.weight" in tensors
    last = tensors["fc.weight" if second else "fc.second.weight"]
    return LightCnn29(last.shape[0], blocks, second=second)
