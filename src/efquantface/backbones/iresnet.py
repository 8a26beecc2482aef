"""IResNet, the backbone of ArcFace, in the parameter names of arcface_torch.

A block is BatchNorm - 3x3 convolution - BatchNorm - PReLU - 3x3 convolution - BatchNorm, added to its
input (Deng et al. 2019, section 3.1, "IR"; Duta et al. 2020). The first BatchNorm is in front of a
zero-padded convolution. So it cannot be folded, and stays a scale and shift per channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from efquantface.backbones.blocks import SqueezeExcite

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    152: (3, 8, 36, 3),
    200: (6, 26, 60, 6),
}
_WIDTHS = (64, 128, 256, 512)
_EPS = 1e-5


class IBasicBlock(nn.Module):
    """Pre-activated residual block: (B,in_channels,H,W) to (B,channels,H/stride,W/stride).

    Args:
        se: with squeeze-and-excitation on the branch ("IR-SE").
        pooled_shortcut: where only the size changes, the shortcut takes every ``stride``-th value and
            has no 1x1 convolution (AdaFace's IR).
        middle_norm: with BatchNorm in front of the PReLU. InsightFace_Pytorch's IR has none.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        se: bool = False,
        pooled_shortcut: bool = False,
        middle_norm: bool = True,
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels, eps=_EPS)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn2: nn.Module | None = nn.BatchNorm2d(channels, eps=_EPS) if middle_norm else None
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels, eps=_EPS)
        self.se_block: nn.Module | None = SqueezeExcite(channels) if se else None
        self.downsample: nn.Module | None = None
        if pooled_shortcut and stride != 1 and in_channels == channels:
            self.downsample = nn.MaxPool2d(1, stride)
        elif stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False),
                nn.BatchNorm2d(channels, eps=_EPS),
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.bn1(x))
        out = self.prelu(out if self.bn2 is None else self.bn2(out))
        out = self.bn3(self.conv2(out))
        if self.se_block is not None:
            out = self.se_block(out)
        added: Tensor = out + (x if self.downsample is None else self.downsample(x))
        return added


class IResNet(nn.Module):
    """Crops (B,3,112,112), normalized, to embeddings (B,embedding_size).

    Args:
        depth: one of ``DEPTHS``.
        embedding_size: number of values of the embedding.
        se, pooled_shortcut, middle_norm: as in :class:`IBasicBlock`.

    Raises:
        KeyError: ``depth`` is none of ``DEPTHS``.
    """

    def __init__(
        self,
        depth: int,
        embedding_size: int = 512,
        *,
        se: bool = False,
        pooled_shortcut: bool = False,
        middle_norm: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps=_EPS)
        self.prelu = nn.PReLU(64)
        channels = 64
        for index, (count, width) in enumerate(zip(DEPTHS[depth], _WIDTHS, strict=True)):
            widths = [(channels, 2), *[(width, 1)] * (count - 1)]
            blocks = [
                IBasicBlock(
                    inputs,
                    width,
                    stride,
                    se=se,
                    pooled_shortcut=pooled_shortcut,
                    middle_norm=middle_norm,
                )
                for inputs, stride in widths
            ]
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
            channels = width
        self.bn2 = nn.BatchNorm2d(512, eps=_EPS)
        self.fc = nn.Linear(512 * 7 * 7, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for index in range(4):
            x = self.get_submodule(f"layer{index + 1}")(x)
        embedding: Tensor = self.features(self.fc(torch.flatten(self.bn2(x), 1)))
        return embedding
