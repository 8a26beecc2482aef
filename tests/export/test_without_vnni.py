"""What a file that is not portable loses, beside TAR and cosines computed plainly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.export.emulate import emulate
from efquantface.export.without_vnni import lost_without_vnni
from efquantface.graph.model import FaceModel
from students import student_of

FACES = make_faces(10, 4, seed=3)


@pytest.fixture
def student(network: nn.Module, contract: FaceContract) -> FaceModel:
    """Weights at the ends of 8 bits, all of one sign: pairs overflow."""
    _, student = student_of(network, contract, full_range=True)
    with torch.no_grad():
        for name, layer in student.graph.named_modules():
            if "block" in name and hasattr(layer, "weight_codes"):
                layer.weight.abs_()
    return student


def integers(student: FaceModel, *, sums16: bool) -> np.ndarray:
    pixels = torch.from_numpy(student.contract.pixels(FACES.images)).float()
    return emulate(student, pixels, sums16=sums16).numpy()


def plain_tar(rows: np.ndarray, far: float) -> float:
    """TAR@FAR, pair by pair."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    genuine, impostor = [], []
    for i in range(len(unit)):
        for j in range(i + 1, len(unit)):
            same = FACES.identities[i] == FACES.identities[j]
            (genuine if same else impostor).append(float(unit[i] @ unit[j]))
    edge = sorted(impostor, reverse=True)[int(far * len(impostor))]
    return float(np.mean([g > edge for g in genuine]))


def plain_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(
        np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b, strict=True)])
    )


@pytest.mark.parametrize("lacking", [False, True])
def test_with_and_without(student: FaceModel, lacking: bool) -> None:
    exact, saturated = integers(student, sums16=False), integers(student, sums16=True)
    assert plain_cosine(exact, saturated) < 0.9999
    teacher = exact + np.random.default_rng(0).normal(0, 0.05 * exact.std(), exact.shape)
    teacher = teacher.astype(np.float32)
    seen: list[int] = []
    found = lost_without_vnni(
        student, FACES.images, FACES.identities, teacher, saturated if lacking else exact,
        lacking=lacking, progress=lambda done, _: seen.append(done),
    )  # fmt: skip
    assert found.measured_without is lacking
    assert found.crops == seen[-1] == 40
    expected = plain_cosine(teacher, exact), plain_cosine(teacher, saturated)
    assert found.cosines == pytest.approx(expected, abs=1e-5)
    assert found.far == 0.01  # 720 impostor pairs: 3 of 300
    assert found.tars == pytest.approx([plain_tar(r, 0.01) for r in (teacher, exact, saturated)])


def test_without_identities_there_is_no_tar(student: FaceModel) -> None:
    rows = integers(student, sums16=False)
    nobody = np.full(len(FACES), -1)
    found = lost_without_vnni(student, FACES.images, nobody, rows, rows, lacking=False)
    assert found.far is None
    assert found.tars is None
    assert found.cosines[0] == pytest.approx(1)
