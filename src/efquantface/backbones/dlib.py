"""dlib's ResNet for faces: 29 convolutions, ReLU, no BatchNorm at the end (King 2017).

This is the architecture, to train from scratch. The trained network is read from dlib's own file
(:mod:`efquantface.importers.dlib_resnet`).
"""

from __future__ import annotations

from torch import Tensor, nn

from efquantface.backbones.blocks import ConvBN
from efquantface.graph import ops

_STAGES = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which a halving block averages and pads with zeros."""

    def __init__(self, inputs: int, outputs: int, size: int, halve: bool) -> None:
        super().__init__()
        self.conv1 = ConvBN(inputs, outputs, 3, 2 if halve else 1, 0 if halve else 1)
        self.conv2 = ConvBN(outputs, outputs, 3, 1, 1)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.size = (size - 3) // 2 + 1 if halve else size
        self.shortcut: nn.Module = nn.AvgPool2d(2, 2) if halve else nn.Identity()
        shortcut = (size - 2) // 2 + 1 if halve else size
        largest = max(self.size, shortcut)
        self.pad = _pad(0, largest - self.size)
        self.shortcut_pad = _pad(outputs - inputs, largest - shortcut)
        self.size = largest

    def forward(self, x: Tensor) -> Tensor:
        out = self.pad(self.conv2(self.relu1(self.conv1(x))))
        activated: Tensor = self.relu2(out + self.shortcut_pad(self.shortcut(x)))
        return activated


def _pad(channels: int, border: int) -> nn.Module:
    if channels == border == 0:
        return nn.Identity()
    return ops.ZeroPad(channels, bottom=border, right=border)


class DlibResNet(nn.Module):
    """Crops (B,3,150,150), normalized, to embeddings (B,embedding_size)."""

    def __init__(self, embedding_size: int = 128) -> None:
        super().__init__()
        self.stem = ConvBN(3, 32, 7, 2)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2)
        blocks, inputs, size = [], 32, 35
        for channels, count, halve in _STAGES:
            for index in range(count):
                blocks.append(_Block(inputs, channels, size, halve and index == 0))
                inputs, size = channels, blocks[-1].size
        self.blocks = nn.Sequential(*blocks)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(inputs, embedding_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.pool(self.relu(self.stem(x))))
        embedding: Tensor = self.linear(self.flatten(self.average(x)))
        return embedding
