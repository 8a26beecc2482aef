"""The largest networks people hold go the whole way: memory, time and speed, with random weights.

    python benchmarks/large_networks.py --faces ../shared/data/faces6k --out runs/large [inception|vit]

InceptionResnetV1 as facenet-pytorch has it (160x160, 23.5 M weights) and ViT-S/8 at 112x112 (197
tokens, twelve blocks, 384 wide) are exported by PyTorch, compressed without training and timed beside
the file itself. Weights are random: nothing is said about recognition. Memory is the process's peak.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efquantface import FaceContract, compress
from efquantface.data.faces import load_faces

CROPS = 200


def conv(
    inputs: int, outputs: int, size: int | tuple[int, int], stride: int = 1, pad: bool = True
) -> nn.Module:
    """A convolution with BatchNorm and ReLU."""
    height, width = (size, size) if isinstance(size, int) else size
    padding = (height // 2, width // 2) if pad else 0
    made = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
    return nn.Sequential(made, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU())


class Residual(nn.Module):
    """Branches side by side, put together by a 1x1 convolution and added."""

    def __init__(
        self, channels: int, joined: int, scale: float, *branches: nn.Module, last: bool = False
    ) -> None:
        super().__init__()
        self.branches, self.join = nn.ModuleList(branches), nn.Conv2d(joined, channels, 1)
        self.scale, self.last = scale, last

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.scale * self.join(torch.cat([branch(x) for branch in self.branches], 1))
        return y if self.last else F.relu(y)


class Side(nn.Module):
    """Branches side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def block35() -> nn.Module:
    """Inception-ResNet-A."""
    return Residual(
        256, 96, 0.17, conv(256, 32, 1),
        nn.Sequential(conv(256, 32, 1), conv(32, 32, 3)),
        nn.Sequential(conv(256, 32, 1), conv(32, 32, 3), conv(32, 32, 3)),
    )  # fmt: skip


def block17() -> nn.Module:
    """Inception-ResNet-B."""
    long = nn.Sequential(conv(896, 128, 1), conv(128, 128, (1, 7)), conv(128, 128, (7, 1)))
    return Residual(896, 256, 0.1, conv(896, 128, 1), long)


def block8(scale: float = 0.2, last: bool = False) -> nn.Module:
    """Inception-ResNet-C."""
    long = nn.Sequential(conv(1792, 192, 1), conv(192, 192, (1, 3)), conv(192, 192, (3, 1)))
    return Residual(1792, 384, scale, conv(1792, 192, 1), long, last=last)


class InceptionResnetV1(nn.Module):
    """facenet-pytorch's, its unit embedding included."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 32, 3, 2, pad=False), conv(32, 32, 3, pad=False), conv(32, 64, 3),
            nn.MaxPool2d(3, 2),
            conv(64, 80, 1), conv(80, 192, 3, pad=False), conv(192, 256, 3, 2, pad=False),
            *(block35() for _ in range(5)),
            Side(conv(256, 384, 3, 2, pad=False), nn.MaxPool2d(3, 2),
                 nn.Sequential(conv(256, 192, 1), conv(192, 192, 3), conv(192, 256, 3, 2, pad=False))),
            *(block17() for _ in range(10)),
            Side(nn.Sequential(conv(896, 256, 1), conv(256, 384, 3, 2, pad=False)),
                 nn.Sequential(conv(896, 256, 1), conv(256, 256, 3, 2, pad=False)),
                 nn.Sequential(conv(896, 256, 1), conv(256, 256, 3), conv(256, 256, 3, 2, pad=False)),
                 nn.MaxPool2d(3, 2)),
            *(block8() for _ in range(5)), block8(1.0, last=True),
            nn.AdaptiveAvgPool2d(1), nn.Dropout(0.6), nn.Flatten(),
            nn.Linear(1792, 512, bias=False), nn.BatchNorm1d(512, eps=1e-3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.body(x), p=2, dim=1)


class Block(nn.Module):
    """Attention and a perceptron, both with a norm in front."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        parts = self.qkv(self.first(x)).reshape(n, t, 3, self.heads, c // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
        x = x + self.out(y)
        return x + self.dense(self.second(x))


class Vit(nn.Module):
    """ViT-S/8 with a class token."""

    def __init__(self, width: int = 384, depth: int = 12, heads: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 512)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


NETWORKS = {"inception": (InceptionResnetV1, 160), "vit": (Vit, 112)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("network", choices=NETWORKS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    make, size = NETWORKS[args.network]
    torch.manual_seed(0)
    path = args.out / f"{args.network}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            make().eval(), (torch.randn(1, 3, size, size),), str(path), dynamo=False, opset_version=17,
            input_names=["input"], output_names=["embedding"],
            dynamic_axes={"input": {0: "batch"}, "embedding": {0: "batch"}},
        )  # fmt: skip
    faces = load_faces(args.faces, FaceContract(size, size, 512), resize=True, limit=CROPS)
    began = time.perf_counter()
    done = compress(
        path,
        faces,
        args.out / args.network,
        epochs=0,
        preprocess="insightface",
        force=True,
        anyway=True,
        cache=False,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{args.network}: {time.perf_counter() - began:.0f} s, {peak:.1f} GiB at most, {done.run.onnx}"
    )


if __name__ == "__main__":
    main()
