"""MobileNetV2 (Sandler et al. 2018, table 2) for faces: four halvings, not five, and a final GDConv."""

from __future__ import annotations

from torch import Tensor, nn

from efquantface.backbones.blocks import Bottleneck, ConvAct, ConvBN

# expansion, channels, blocks, stride of the first block; the stem halves first
STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1)),
)
_STEM, _TAIL, _MAP = 32, 512, 7


class MobileNetV2(nn.Module):
    """Crops (B,3,112,112), normalized, to embeddings (B,embedding_size)."""

    def __init__(self, embedding_size: int = 512) -> None:
        super().__init__()
        self.stem = ConvAct(3, _STEM, 3, 2, 1, act="relu6")
        blocks, inputs = [], _STEM
        for expansion, channels, count, first in STAGES:
            for index in range(count):
                stride = first if index == 0 else 1
                blocks.append(
                    Bottleneck(
                        inputs,
                        channels,
                        inputs * expansion,
                        stride,
                        residual=stride == 1 and inputs == channels,
                        act="relu6",
                        expand=expansion != 1,
                    )
                )
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.sep = ConvAct(inputs, _TAIL, act="relu6")
        self.gdc = ConvBN(_TAIL, _TAIL, _MAP, groups=_TAIL)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(_TAIL, embedding_size, bias=False)
        self.bn = nn.BatchNorm1d(embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gdc(self.sep(self.blocks(self.stem(x))))
        embedding: Tensor = self.bn(self.linear(self.flatten(x)))
        return embedding
