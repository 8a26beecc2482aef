"""What an embedder takes, what it says of the rest, and what opening one leaves alone."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from conftest import SIZE, make_faces
from efquantface.contract import FaceContract
from efquantface.embedding import embedder as module
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ContractError
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model


@pytest.fixture
def embedder(tmp_path: Path, network: nn.Module, contract: FaceContract) -> Embedder:
    write_onnx(load_model(network, contract=contract), tmp_path / "student.onnx")
    return Embedder.open(tmp_path / "student.onnx")


def test_a_model_stays_where_it_is(network: nn.Module, contract: FaceContract) -> None:
    model = load_model(network, contract=contract)
    Embedder.open(model, backend="torch", device="meta")  # any device but the CPU
    assert {p.device.type for p in model.graph.parameters()} == {"cpu"}


def test_one_image_is_a_batch_of_one(embedder: Embedder) -> None:
    images = make_faces().images
    rows = embedder.embed(images, flip=True)
    calls: list[tuple[int, int]] = []
    one = embedder.embed(images[3], flip=True, progress=lambda *done: calls.append(done))
    assert one.shape == (16,)
    assert one.dtype == np.float32
    np.testing.assert_allclose(one, rows[3], rtol=1e-4, atol=1e-5)
    assert calls == [(1, 1)]
    assert not np.allclose(np.linalg.norm(rows, axis=1), 1)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 3, SIZE, SIZE), np.uint8, r"moveaxis\(faces, -3, -1\)"),
        ((3, SIZE, SIZE), np.uint8, r"moveaxis\(faces, -3, -1\)"),
        ((SIZE, SIZE), np.uint8, rf"shape \(32, 32\); uint8 RGB crops \(N, {SIZE}, {SIZE}, 3\)"),
        ((2, SIZE, SIZE, 4), np.uint8, rf"\(N, {SIZE}, {SIZE}, 3\), or one without the N"),
        ((2, SIZE, SIZE, 3), np.float32, r"faces are float32 .*; uint8 RGB crops"),
        ((0, SIZE, SIZE, 3), np.uint8, "no faces"),
        ((2, SIZE, 40, 3), np.uint8, "32x40, the network takes 32x32"),
        ((SIZE, 40, 3), np.uint8, "32x40, the network takes 32x32"),
    ],
)
def test_wrong_crops_are_told_the_right_shape(
    embedder: Embedder, shape: tuple[int, ...], dtype: type, message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        embedder.embed(np.zeros(shape, dtype))


def test_a_list_is_told_what_is_expected(embedder: Embedder) -> None:
    with pytest.raises(ContractError, match="faces are list"):
        embedder.embed([[1, 2]])  # type: ignore[arg-type]


def test_examples(embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"embedder": embedder, "faces": make_faces(2, 1).images}
    result = doctest.testmod(module, extraglobs=known)
    assert (result.failed, result.attempted >= 5) == (0, True)
