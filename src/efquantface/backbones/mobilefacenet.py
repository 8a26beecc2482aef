"""MobileFaceNet (Chen et al. 2018, table 1) in its common variants.

They differ in width, number of bottlenecks, nonlinearity and stem. All end in a global depthwise
convolution and a linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from efquantface.backbones.blocks import Bottleneck, ConvAct, ConvBN

_TAIL = 512
_MAP = 7  # height and width in front of the global convolution, for crops of 112x112


@dataclass(frozen=True)
class MobileFaceNetConfig:
    """A variant of MobileFaceNet.

    Attributes:
        width: channels of the first stage; later stages have twice as many.
        inner: channels inside the bottlenecks of the three stages.
        blocks: number of bottlenecks in front of the first halving (0: a 3x3 convolution instead), and
            of residual bottlenecks in the three stages.
        stem_groups: groups of that 3x3 convolution.
        stem_pointwise: a 1x1 convolution follows it.
        act, stem_act: nonlinearity of the stages, and of the two convolutions in front of them.
        linear_bias: the embedding layer has a bias in addition to its BatchNorm.
    """

    embedding_size: int = 512
    width: int = 64
    inner: tuple[int, int, int] = (128, 256, 256)
    blocks: tuple[int, int, int, int] = (0, 4, 6, 2)
    stem_groups: int = 64
    stem_pointwise: bool = False
    act: str = "prelu"
    stem_act: str = "prelu"
    linear_bias: bool = False


class MobileFaceNet(nn.Module):
    """Crops (B,3,112,112), normalized, to embeddings (B,embedding_size)."""

    def __init__(self, config: MobileFaceNetConfig) -> None:
        super().__init__()
        c, w = config, config.width
        self.stem = ConvAct(3, w, 3, 2, 1, act=c.act)
        if c.blocks[0]:
            self.stem_dw: nn.Module = self._stage(w, c.inner[0], c.blocks[0], c.act)
        else:
            self.stem_dw = ConvAct(w, w, 3, 1, 1, c.stem_groups, c.stem_act)
        self.stem_pw = ConvAct(w, w, act=c.stem_act) if c.stem_pointwise else nn.Identity()
        self.down1 = Bottleneck(w, w, c.inner[0], 2, residual=False, act=c.act)
        self.stage1 = self._stage(w, c.inner[0], c.blocks[1], c.act)
        self.down2 = Bottleneck(w, 2 * w, c.inner[1], 2, residual=False, act=c.act)
        self.stage2 = self._stage(2 * w, c.inner[1], c.blocks[2], c.act)
        self.down3 = Bottleneck(2 * w, 2 * w, 2 * c.inner[1], 2, residual=False, act=c.act)
        self.stage3 = self._stage(2 * w, c.inner[2], c.blocks[3], c.act)
        self.sep = ConvAct(2 * w, _TAIL, act=c.act)
        self.gdc = ConvBN(_TAIL, _TAIL, _MAP, groups=_TAIL)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(_TAIL, c.embedding_size, bias=c.linear_bias)
        self.bn = nn.BatchNorm1d(c.embedding_size)

    @staticmethod
    def _stage(width: int, inner: int, count: int, act: str) -> nn.Sequential:
        return nn.Sequential(
            *(Bottleneck(width, width, inner, residual=True, act=act) for _ in range(count))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_pw(self.stem_dw(self.stem(x)))
        x = self.stage1(self.down1(x))
        x = self.stage2(self.down2(x))
        x = self.stage3(self.down3(x))
        embedding: Tensor = self.bn(self.linear(self.flatten(self.gdc(self.sep(x)))))
        return embedding
