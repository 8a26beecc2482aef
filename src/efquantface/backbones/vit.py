"""The vision transformer of arcface_torch, in its parameter names.

Patches have no class token. Blocks are pre-normalized: attention, and two linear layers with ReLU6
between them (Dosovitskiy et al. 2021). The embedding is computed from all tokens together: linear,
BatchNorm, linear, BatchNorm.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from efquantface.backbones.blocks import Times
from efquantface.graph import ops

HEADS = 8  # in all of arcface_torch's; weights do not show it
SIZE = 112
_EPS, _BATCH_EPS = 1e-5, 2e-5


class _Attention(nn.Module):
    """Attention between tokens (B,N,C)."""

    def __init__(self, channels: int, tokens: int, bias: bool) -> None:
        super().__init__()
        each = channels // HEADS
        self.qkv = nn.Linear(channels, 3 * channels, bias=bias)
        self.split, self.heads_first = (
            ops.Reshape((tokens, 3 * HEADS, each)),
            ops.Transpose((0, 2, 1, 3)),
        )
        self.query, self.key = ops.Slice(1, 0, HEADS), ops.Slice(1, HEADS, 2 * HEADS)
        self.value = ops.Slice(1, 2 * HEADS, 3 * HEADS)
        self.turn = ops.Transpose((0, 1, 3, 2))
        self.similarity, self.weigh = ops.MatMul(), ops.MatMul()
        self.times, self.softmax = Times(each**-0.5, island=True), ops.Softmax()
        self.tokens_first = ops.Transpose((0, 2, 1, 3))
        self.join = ops.Reshape((tokens, channels))
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.heads_first(self.split(self.qkv(x)))
        products = self.similarity(self.query(parts), self.turn(self.key(parts)))
        mixed = self.weigh(self.softmax(self.times(products)), self.value(parts))
        out: Tensor = self.proj(self.join(self.tokens_first(mixed)))
        return out


class _Mlp(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = (
            nn.Linear(channels, inner),
            nn.ReLU6(),
            nn.Linear(inner, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class _Block(nn.Module):
    def __init__(self, channels: int, inner: int, tokens: int, bias: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = ops.LayerNorm(channels, _EPS), ops.LayerNorm(channels, _EPS)
        self.attn, self.mlp = _Attention(channels, tokens, bias), _Mlp(channels, inner)
        self.add1, self.add2 = ops.Add(), ops.Add()

    def forward(self, x: Tensor) -> Tensor:
        x = self.add1(x, self.attn(self.norm1(x)))
        out: Tensor = self.add2(x, self.mlp(self.norm2(x)))
        return out


class _Patches(nn.Module):
    def __init__(self, channels: int, patch: int, tokens: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, patch, patch)
        self.rows, self.tokens_first = ops.Reshape((channels, tokens)), ops.Transpose((0, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.tokens_first(self.rows(self.proj(x)))
        return out


class VisionTransformer(nn.Module):
    """Crops (B,3,112,112), normalized, to embeddings (B,embedding_size).

    Args:
        embedding_size: number of values of the embedding.
        channels, depth, patch: channels of a token, number of blocks, side of a patch.
        inner: width between a block's two linear layers; None for four times ``channels``.
        qkv_bias: whether queries, keys and values have a bias.
    """

    def __init__(
        self,
        embedding_size: int = 512,
        channels: int = 512,
        depth: int = 12,
        patch: int = 9,
        inner: int | None = None,
        *,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        tokens = (SIZE // patch) ** 2
        self.patch_embed = _Patches(channels, patch, tokens)
        self.pos_embed = ops.Shift((tokens, channels))
        self.blocks = nn.Sequential(
            *(_Block(channels, inner or 4 * channels, tokens, qkv_bias) for _ in range(depth))
        )
        self.norm, self.flatten = ops.LayerNorm(channels, _EPS), nn.Flatten()
        self.feature = nn.Sequential(
            nn.Linear(channels * tokens, channels, bias=False),
            nn.BatchNorm1d(channels, eps=_BATCH_EPS),
            nn.Linear(channels, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size, eps=_BATCH_EPS),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.pos_embed(self.patch_embed(x))))
        out: Tensor = self.feature(self.flatten(x))
        return out


def vit_name(name: str) -> str:
    """From arcface_torch's name of a tensor to ours."""
    return "pos_embed.bias" if name == "pos_embed" else name


def vit_from(tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network that a checkpoint's names and shapes describe, with eight heads.

    Raises:
        KeyError: a tensor is missing.
        ValueError: patches do not fill a 112x112 crop, or eight heads do not divide the channels.
    """
    channels, _, patch, _ = tensors["patch_embed.proj.weight"].shape
    tokens = tensors["pos_embed.bias"].shape[-2]
    if tokens != (SIZE // patch) ** 2 or channels % HEADS:
        raise ValueError(
            f"{tokens} patches of {patch}x{patch} pixels, {channels} channels; known are crops of "
            f"{SIZE}x{SIZE} and {HEADS} heads"
        )
    return VisionTransformer(
        tensors["feature.2.weight"].shape[0],
        channels,
        len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
        patch,
        tensors["blocks.0.mlp.fc1.weight"].shape[0],
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
    )
