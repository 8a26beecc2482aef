"""Small networks and small faces that every test can afford."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import nn

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.data.images import write_image
from formats import png, write_rec

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIZE = 32
# The same examples in every run, and no time limit an example: two cores may be busy.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, max_examples=40
)
settings.load_profile("repeatable")
torch.set_num_threads(1)  # tiny tensors: threads would only wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not SHARED.is_dir():
        skip = pytest.mark.skip(reason="../shared is not there")
        for item in items:
            if "real" in item.keywords:
                item.add_marker(skip)


class Bottleneck(nn.Module):
    """Expand, depthwise, project, with PReLU and a residual: MobileFaceNet's block."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class SmallFaceNet(nn.Module):
    """A face network in miniature: stem, bottleneck, global depthwise convolution, embedding."""

    def __init__(self, embedding: int = 16, size: int = SIZE) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16)
        )
        self.pool = nn.MaxPool2d(2)
        self.block = Bottleneck(16, 32)
        self.relu = nn.ReLU6()
        self.tail = nn.Conv2d(16, 16, size // 4, groups=16, bias=False)
        self.fc = nn.Linear(16, embedding)
        self.bn = nn.BatchNorm1d(embedding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.block(self.pool(self.stem(x))))
        return self.bn(self.fc(torch.flatten(self.tail(x), 1)))


@torch.no_grad()
def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and slopes as a trained network might have them."""
    generator = torch.Generator().manual_seed(seed)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            child.running_mean.normal_(0, 0.2, generator=generator)
            child.running_var.uniform_(0.5, 2, generator=generator)
            if child.affine:
                child.weight.uniform_(0.5, 1.5, generator=generator)
                child.bias.normal_(0, 0.2, generator=generator)
        elif isinstance(child, nn.PReLU):
            child.weight.uniform_(-0.5, 1.2, generator=generator)
        elif isinstance(child, nn.Conv2d | nn.Linear):
            child.weight.normal_(0, 1.5 / child.weight[0].numel() ** 0.5, generator=generator)
    return module.eval()


@pytest.fixture
def contract() -> FaceContract:
    return FaceContract(height=SIZE, width=SIZE, embedding_size=16, template="unknown")


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return randomize(SmallFaceNet())


def make_faces(identities: int = 12, each: int = 4, size: int = SIZE, seed: int = 0) -> FaceSet:
    """Smooth random patterns; images of one identity are noisy copies of one pattern."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (identities, 1, 4, 4, 3))
    coarse = np.clip(coarse + rng.normal(0, 25, (identities, each, 4, 4, 3)), 0, 255)
    images = np.kron(coarse, np.ones((1, 1, size // 4, size // 4, 1)))
    images = np.clip(images + rng.normal(0, 8, images.shape), 0, 255).astype(np.uint8)
    names = [f"person{i:02d}" for i in range(identities)]
    return FaceSet(
        images.reshape(-1, size, size, 3),
        [f"{n}/{n}_{j + 1:04d}.png" for n in names for j in range(each)],
        np.repeat(np.arange(identities), each),
        names,
        "test faces",
    )


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """fsspec's file system in memory, empty."""
    system = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setattr(type(system), "store", {})
    monkeypatch.setattr(type(system), "pseudo_dirs", [""])
    return system


@pytest.fixture
def faces() -> FaceSet:
    return make_faces()


@pytest.fixture
def faces_dir(tmp_path: Path, faces: FaceSet) -> Path:
    root = tmp_path / "faces"
    for name, image in zip(faces.names, faces.images, strict=True):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, image)
    return root


@pytest.fixture
def rec(tmp_path: Path, faces: FaceSet) -> Path:
    path = tmp_path / "train.rec"
    write_rec(path, [png(i) for i in faces.images], [int(i) for i in faces.identities])
    return path
