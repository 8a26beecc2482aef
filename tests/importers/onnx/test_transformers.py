"""Transformers as exporters write them: tokens, attention in all forms, windows, the batch anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efquantface.importers.onnx.importer import import_onnx
from exported import check, export, same_as_onnxruntime
from onnx_forms import array, node, save

WIDTH, HEADS = 32, 4


class Block(nn.Module):
    """Attention and a perceptron; ``how`` queries, keys and values come apart."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.dense = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def attention(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        parts = self.qkv(x)
        if self.how == "unbind":
            parts = parts.reshape(n, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
            q, k, v = parts.unbind(0)
        elif self.how == "index":
            parts = parts.reshape(n, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
            q, k, v = parts[0], parts[1], parts[2]
        elif self.how == "inner unbind":
            parts = parts.view(n, t, 3, HEADS, c // HEADS).unbind(2)
            q, k, v = (p.transpose(1, 2) for p in parts)
        else:
            q, k, v = (
                p.reshape(n, t, HEADS, c // HEADS).transpose(1, 2) for p in parts.chunk(3, -1)
            )
        if self.how == "index":
            y = ((q * (c // HEADS) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, t, c))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.dense(self.second(x))


class Vit(nn.Module):
    """16 patches, perhaps a class token and registers, one block."""

    def __init__(self, how: str = "unbind", tokens: str = "class", pool: str = "token") -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.1)
        self.registers = nn.Parameter(torch.randn(1, 2, WIDTH) * 0.1)
        self.places = nn.Parameter(torch.randn(1, 16 + (tokens != "none"), WIDTH) * 0.1)
        self.tokens, self.pool = tokens, pool
        self.block, self.norm = Block(how), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.tokens != "none":
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.places
        if self.tokens == "registers":
            registers = self.registers.expand(x.shape[0], -1, -1)
            x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)
        x = self.norm(self.block(x))
        pooled = {"token": lambda: x[:, 0], "mean": lambda: x.mean(1), "max": lambda: x.amax(1)}
        return self.head(pooled[self.pool]())


class Encoder(nn.Module):
    """PyTorch's own layer, which puts tokens in front of the batch and merges the batch with heads."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.patches, self.batch_first = nn.Conv2d(3, WIDTH, 8, 8), batch_first
        self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=batch_first)
        self.head = nn.Linear(WIDTH, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2)
        x = self.layer(x.transpose(1, 2) if self.batch_first else x.permute(2, 0, 1))
        return self.head(x.mean(1 if self.batch_first else 0))


class Windows(nn.Module):
    """Attention in windows of 4x4, which are merged with the batch, rolled by ``shift``."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.patches, self.block, self.shift = nn.Conv2d(3, WIDTH, 4, 4), Block("unbind"), shift
        self.head = nn.Linear(WIDTH, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        x = self.block(x).view(n, h // 4, w // 4, 4, 4, c)
        return self.head(x.permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c).mean((1, 2)))


class Queries(nn.Module):
    """Trained queries that look at the patches, without an axis of heads or with one."""

    def __init__(self, heads: bool) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, WIDTH, 8, 8), nn.Linear(2 * WIDTH, 16)
        own = (1, HEADS, 2, WIDTH // HEADS) if heads else (2, WIDTH)
        self.queries, self.heads = nn.Parameter(torch.randn(own)), heads

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2)
        if self.heads:
            x = x.view(x.shape[0], HEADS, WIDTH // HEADS, -1)
        shares = torch.softmax(self.queries @ x / 4, -1)
        return self.head((shares @ x.transpose(-1, -2)).flatten(1))


NETWORKS = {
    "trained queries": lambda: Queries(False),
    "trained queries, heads": lambda: Queries(True),
    "unbind": lambda: Vit("unbind"),
    "index": lambda: Vit("index"),
    "inner unbind": lambda: Vit("inner unbind"),
    "chunk": lambda: Vit("chunk"),
    "registers": lambda: Vit(tokens="registers"),
    "mean of tokens": lambda: Vit(tokens="none", pool="mean"),
    "largest of tokens": lambda: Vit(tokens="none", pool="max"),
    "encoder layer": lambda: Encoder(True),
    "encoder layer, tokens first": lambda: Encoder(False),
    "windows": lambda: Windows(0),
    "rolled windows": lambda: Windows(2),
}


@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = export(NETWORKS[name](), tmp_path / "t.onnx", opset)
    if opset == 17:
        _, parity = check(path, least=0.95)
        assert parity.executed.products == parity.executed.integer_products
    else:
        same_as_onnxruntime(path)


def test_a_class_token_in_a_baked_batch(tmp_path: Path) -> None:
    """It is a constant, once for each of two crops."""
    torch.manual_seed(0)
    module = Vit("unbind").eval()
    x = torch.randn(2, 3, 32, 32)
    path = tmp_path / "b.onnx"
    torch.onnx.export(module, (x,), str(path), dynamo=False, opset_version=14, input_names=["in"])
    with torch.no_grad():
        found, wanted = import_onnx(path).graph(x), module(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def attention(path: Path, *, lines: bool, mask: np.ndarray | None, **attrs: object) -> Path:
    """The one node of opset 23, between patches and an embedding, as newer exporters write it."""
    inits = {"w": array(16, 3, 8, 8) / 14, "wq": array(16, 16) / 4, "wk": array(16, 16) / 4}
    inits |= {
        "gw": array(16, 16) / 4,
        "rows": np.array([0, 16, -1]),
        "heads": np.array([0, 16, 4, 4]),
    }
    nodes = [
        node("Conv", ["in", "w"], "c", strides=[8, 8]),
        node("Reshape", ["c", "rows"], "r"),
        node("Transpose", ["r"], "t", perm=[0, 2, 1]),
        node("MatMul", ["t", "wq"], "q0"),
        node("MatMul", ["t", "wk"], "k0"),
    ]
    names = ["q0", "k0", "t"]
    if not lines:
        for source, name in zip(names, "qkv", strict=True):
            nodes += [
                node("Reshape", [source, "heads"], f"{name}1"),
                node("Transpose", [f"{name}1"], name, perm=[0, 2, 1, 3]),
            ]
        names = list("qkv")
    if mask is not None:
        inits["mask"] = mask
        names.append("mask")
    nodes.append(node("Attention", names, "a", **attrs))
    if not lines:
        nodes += [node("Transpose", ["a"], "a1", perm=[0, 2, 1, 3])]
        nodes += [node("Reshape", ["a1", "back"], "b")]
        inits["back"] = np.array([0, 16, 16])
    axes = {"axes": np.array([1])}
    last = "a" if lines else "b"
    nodes += [
        node("ReduceMean", [last, "axes"], "m", keepdims=0),
        node("MatMul", ["m", "gw"], "out"),
    ]
    return save(path, nodes, inits | axes, opset=23, inp=("batch", 3, 32, 32))


ATTENTION = {
    "heads": (False, None, {}),
    "scale": (False, None, {"scale": 0.3}),
    "causal": (False, None, {"is_causal": 1}),
    "mask": (False, np.float32(np.linspace(-1, 1, 256).reshape(16, 16)), {}),
    "truths": (False, np.tril(np.ones((16, 16), bool)), {}),
    "lines": (True, None, {"q_num_heads": 4, "kv_num_heads": 4}),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_as_one_node(name: str, tmp_path: Path) -> None:
    lines, mask, attrs = ATTENTION[name]
    check(attention(tmp_path / "a.onnx", lines=lines, mask=mask, **attrs), least=0.95)


EINSUMS = {
    "bilinear pooling": (["a", "m"], "bij,bjk->bik"),
    "keys turned": (["a", "b"], "bij,bkj->bki"),
    "outer product, one axis shared": (["a", "b"], "bij,bkj->bjik"),
    "linear": (["a", "l"], "bij,jk->bik"),
    "linear over the first axis": (["l", "a"], "ik,bij->bkj"),
}


@pytest.mark.parametrize("name", EINSUMS)
def test_einsum(name: str, tmp_path: Path) -> None:
    names, equation = EINSUMS[name]
    nodes = [
        node("Conv", ["in", "w"], "c", strides=[8, 8]),
        node("Reshape", ["c", "rows"], "a"),
        node("Sigmoid", ["a"], "b"),
        node("Transpose", ["b"], "m", perm=[0, 2, 1]),
        node("Einsum", names, "x", equation=equation),
        node("Flatten", ["x"], "out"),
    ]
    inits = {"w": array(16, 3, 8, 8) / 14, "rows": np.array([0, 16, -1])}
    inits |= {"l": array(16, 16) / 4} if "l" in names else {}
    check(save(tmp_path / "e.onnx", nodes, inits, inp=("batch", 3, 32, 32)), least=0.9)


def test_softmax_over_another_axis(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["in", "w"], "c", strides=[8, 8]),
        node("Softmax", ["c"], "s", axis=1),
        node("Mul", ["c", "s"], "x"),
        node("GlobalAveragePool", ["x"], "g"),
        node("Flatten", ["g"], "f"),
        node("MatMul", ["f", "gw"], "out"),
    ]
    inits = {"w": array(16, 3, 8, 8) / 14, "gw": array(16, 16)}
    check(save(tmp_path / "s.onnx", nodes, inits, inp=("batch", 3, 32, 32)), least=0.95)
