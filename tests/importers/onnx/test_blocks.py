"""Blocks of mobile networks: gates, attention over channels and places, norms, shuffles, paddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conftest import make_faces
from efquantface import compress
from exported import Fn, around, check, export, same_as_onnxruntime
from onnx_forms import CONV, W, array, node, save


class Cat(nn.Module):
    """Two layers' channels, one behind the other."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first(x), self.second(x)], 1)


class Ghost(nn.Module):
    """Half of the channels made of the other half, one of them left out."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.PReLU(4))
        self.cheap = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.PReLU(4))
        self.again = nn.Conv2d(7, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return self.again(torch.cat([x, self.cheap(x)], 1)[:, :7])


class Gate(nn.Module):
    """GhostNetV2's attention: computed at half the size, and enlarged."""

    def __init__(self, **how: object) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv2d(8, 8, (1, 5), 1, (0, 2), groups=8), how

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.conv(F.avg_pool2d(x, 2, 2)))
        return x * F.interpolate(gate, size=(x.shape[-2], x.shape[-1]), **self.how)  # type: ignore[arg-type]


class Cbam(nn.Module):
    """Attention over channels, then over places by mean and maximum of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        x = x * torch.sigmoid(self.dense(pooled[0]) + self.dense(pooled[1]))
        maps = [x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]]
        return x * torch.sigmoid(self.place(torch.cat(maps, 1)))


class Eca(nn.Module):
    """A one-dimensional convolution over the channels' means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2)
        return x * torch.sigmoid(self.conv(y).transpose(-1, -2).unsqueeze(-1))


class NormOfChannels(nn.Module):
    """LayerNorm of the channels at each place, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 8))
        self.bias = nn.Parameter(torch.linspace(-0.2, 0.2, 8))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        spread = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(spread + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def se() -> nn.Module:
    """Squeeze and excitation with a hard gate."""
    first, second = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
    return Fn(
        lambda m, x: x * F.hardsigmoid(m["b"](F.relu(m["a"](F.adaptive_avg_pool2d(x, 1))))),
        a=first, b=second,
    )  # fmt: skip


def mfm(parts: int) -> nn.Module:
    """Largest of ``parts`` convolutions, channel by channel."""

    def largest(m: nn.ModuleDict, x: Tensor) -> Tensor:
        found, *others = m["conv"](x).chunk(parts, 1)
        for other in others:
            found = torch.max(found, other)
        return found

    return Fn(largest, conv=nn.Conv2d(8, 8 * parts, 3, 1, 1))


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def split_and_shuffle(m: nn.ModuleDict, x: Tensor) -> Tensor:
    kept, changed = x.chunk(2, 1)
    return shuffle(torch.cat([kept, m["conv"](changed)], 1))


def space_to_depth(x: Tensor) -> Tensor:
    rows = x[..., ::2, :], x[..., 1::2, :]
    return torch.cat([r[..., start::2] for start in (0, 1) for r in rows], 1)


def gem(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x.clamp(min=1e-6).pow(3.0), 1).pow(1 / 3.0)


BLOCKS: dict[str, nn.Module] = {
    "squeeze and excitation": se(),
    "ghost": Ghost(),
    "depthwise multiplier behind concat": nn.Sequential(
        Cat(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, 1, 1)),
        nn.Conv2d(16, 32, 3, 1, 1, groups=16), nn.ReLU(), nn.Conv2d(32, 8, 1),
    ),
    "grouped behind concat": nn.Sequential(
        Cat(nn.Conv2d(8, 8, 1), nn.ReLU()), nn.Conv2d(16, 8, 3, 1, 1, groups=4)
    ),
    "gate, nearest": Gate(mode="nearest"),
    "gate, bilinear": Gate(mode="bilinear", align_corners=False),
    "gate, bilinear by corners": Gate(mode="bilinear", align_corners=True),
    "gate, bicubic": Gate(mode="bicubic", align_corners=False),
    "upsample": nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool2d(2)),
    "cbam": Cbam(),
    "eca": Eca(),
    "mfm": mfm(2),
    "mfm of three": mfm(3),
    "minimum of two": Fn(
        lambda m, x: torch.minimum(m["a"](x), m["b"](x)), a=nn.Conv2d(8, 8, 1), b=nn.Conv2d(8, 8, 1)
    ),
    "shuffle": Fn(split_and_shuffle, conv=nn.Conv2d(4, 4, 3, 1, 1)),
    "space to depth by slices": nn.Sequential(Fn(space_to_depth), nn.Conv2d(32, 8, 1)),
    "pixel shuffle": nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(2, 8, 2, 2)),
    "pixel unshuffle": nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(32, 8, 1)),
    "group norm": nn.GroupNorm(4, 8),
    "one group": nn.GroupNorm(1, 8),
    "instance norm": nn.InstanceNorm2d(8, affine=True),
    "instance norm, no weights": nn.InstanceNorm2d(8),
    "norm of channels": NormOfChannels(),
    "norm of channels, turned": Fn(
        lambda m, x: m["norm"](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.LayerNorm(8)
    ),
    "norm of a map": nn.LayerNorm([8, 16, 16]),
    "root mean square": Fn(lambda x: x * torch.rsqrt(x.pow(2).mean((2, 3), keepdim=True) + 1e-3)),
    "local response": nn.LocalResponseNorm(3, alpha=0.1),
    "reflected border": nn.Conv2d(8, 8, 3, 1, 1, padding_mode="reflect"),
    "repeated border": nn.Conv2d(8, 8, 5, 1, 2, padding_mode="replicate"),
    "border from the other side": nn.Conv2d(8, 8, 3, 1, 1, padding_mode="circular"),
    "reflected, uneven": nn.ReflectionPad2d((1, 0, 2, 1)),
    "border of a value": nn.ConstantPad2d((1, 0, 2, 1), 0.5),
    "a power for each channel": Fn(
        lambda x: (F.relu(x) + 0.1) ** torch.linspace(1.5, 3, 8).view(1, -1, 1, 1)
    ),
    "unfolded": Fn(
        lambda m, x: m["c"](F.unfold(x, 2, stride=2).view(x.shape[0], 32, 8, 8)),
        c=nn.Conv2d(32, 8, 1),
    ),
    "mirror image": Fn(lambda x: x + x.flip(3)),
    "axis of two": Fn(lambda x: x * x.amax((2, 3), keepdim=True).sigmoid()),
    "line": nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(8), nn.PReLU(8), nn.Conv1d(8, 8, 3, 1, 1),
                          nn.MaxPool1d(2), nn.Unflatten(2, (8, 16))),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name: str, tmp_path: Path) -> None:
    check(export(around(BLOCKS[name]), tmp_path / "b.onnx"))


@pytest.mark.parametrize("name", ["ghost", "mfm", "shuffle", "line", "gate, nearest"])
def test_block_of_few_bits(name: str, tmp_path: Path) -> None:
    check(export(around(BLOCKS[name]), tmp_path / "b.onnx"), "w4a4", least=0.8)


@pytest.mark.parametrize("name", ["mfm", "mfm of three", "gate, nearest", "reflected border"])
def test_block_in_integers(name: str, tmp_path: Path) -> None:
    _, parity = check(export(around(BLOCKS[name]), tmp_path / "b.onnx"))
    assert set(parity.executed.in_float) == {"Add"}  # of the pixels


def test_generalized_mean(tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), Fn(gem), nn.Flatten(), nn.Linear(16, 16)
    )
    check(export(net, tmp_path / "g.onnx"))


ONE_NODE = {
    "pad by axes": (18, [node("Pad", ["c", "pads", "", "axes"], "p")]),
    "reflect by axes": (18, [node("Pad", ["c", "pads", "", "axes"], "p", mode="reflect")]),
    "edge": (13, [node("Pad", ["c", "all"], "p", mode="edge")]),
    "negative": (13, [node("Pad", ["c", "less"], "p")]),
    "group norm": (21, [node("GroupNormalization", ["c", "w4", "b4"], "p", num_groups=2)]),
    "group norm 18": (18, [node("GroupNormalization", ["c", "w2", "b2"], "p", num_groups=2)]),
    "lrn": (13, [node("LRN", ["c"], "p", size=3, alpha=0.5, beta=0.6, bias=1.5)]),
    "resize 10": (10, [node("Resize", ["c", "twice"], "p")]),
    "upsample 9": (9, [node("Upsample", ["c", "twice"], "p", mode="linear")]),
    "resize by axes": (18, [node("Resize", ["c", "", "", "to"], "p", axes=[2, 3], mode="linear")]),
    "depth to space": (13, [node("DepthToSpace", ["c"], "p", blocksize=2, mode="CRD")]),
    "space to depth": (13, [node("SpaceToDepth", ["c"], "p", blocksize=2)]),
    "concat with a constant": (13, [node("Concat", ["k", "c", "k"], "p", axis=1)]),
    "tile": (13, [node("Tile", ["c", "times"], "p")]),
    "sum of three": (13, [node("Relu", ["c"], "r"), node("Sum", ["c", "r", "in4"], "p")]),
}
INITS = {
    "pads": np.array([1, 0, 2, 1]), "axes": np.array([3, -2]),
    "all": np.array([0, 0, 1, 0, 0, 0, 2, 1]), "less": np.array([0, 0, -1, 0, 0, 1, 0, -2]),
    "w4": abs(array(4)), "b4": array(4), "w2": abs(array(2)), "b2": array(2),
    "twice": np.float32([1, 1, 2, 2]), "to": np.array([11, 13]), "k": array(1, 2, 8, 8),
    "times": np.array([1, 1, 2, 1]), "in4": array(1, 4, 8, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_NODE)
def test_one_node(name: str, tmp_path: Path) -> None:
    opset, nodes = ONE_NODE[name]
    used = {i for n in nodes for i in n.input}
    inits = {**W, **{k: v for k, v in INITS.items() if k in used}}
    tail = [node("GlobalAveragePool", ["p"], "g"), node("GlobalMaxPool", ["p"], "h")]
    tail += [node("Concat", ["g", "h"], "out", axis=1)]
    batch = 1 if "k" in used else "batch"
    inp = (batch, 3, 8, 8)
    path = save(tmp_path / "o.onnx", [CONV, *nodes, *tail], inits, opset=opset, inp=inp)
    same_as_onnxruntime(path)


def test_the_whole_job(tmp_path: Path) -> None:
    """`efq compress --no-finetune` of a network with most of these blocks."""
    blocks = [
        BLOCKS[n] for n in ("ghost", "cbam", "mfm", "shuffle", "gate, bilinear", "group norm")
    ]
    path = export(around(*blocks, nn.Hardswish()), tmp_path / "n.onnx")
    done = compress(
        path, make_faces(), tmp_path / "run", preprocess="insightface", epochs=0, anyway=True,
        benchmark=False, cache=False, quiet=True,
    )  # fmt: skip
    assert done.parity.problems == []
    assert done.parity.student_cosine > 0.95
