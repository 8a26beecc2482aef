"""dlib's file: read to the last byte, equal to dlib itself, damage named with its place."""

from __future__ import annotations

from pathlib import Path

import dlib
import numpy as np
import pytest
import torch

from efquantface import assets
from efquantface.errors import ModelFileError
from efquantface.importers.dlib_format import read_dlib
from efquantface.importers.dlib_resnet import load_dlib_resnet
from efquantface.importers.load import load_model


@pytest.fixture(scope="module")
def dat() -> Path:
    return assets.fetch(assets.DLIB_RESNET)


def test_equals_dlib(dat: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (4, 10, 10, 3))
    faces = np.kron(coarse, np.ones((1, 15, 15, 1))).astype(np.uint8)
    reference = dlib.face_recognition_model_v1(str(dat))
    expected = np.array([reference.compute_face_descriptor(face) for face in faces])
    graph, contract = load_dlib_resnet(dat)
    pixels = torch.from_numpy(contract.pixels(faces)).float()
    raw = graph(pixels).detach().numpy()
    np.testing.assert_allclose(raw, expected, atol=1e-5)
    folded = load_model(dat).embed_pixels(pixels).numpy()
    np.testing.assert_allclose(folded, expected, atol=1e-5)


def test_contract(dat: Path) -> None:
    contract = load_model("dlib-resnet").contract
    assert (contract.height, contract.width, contract.embedding_size) == (150, 150, 128)
    np.testing.assert_allclose(contract.mean, [122.782, 117.001, 104.298], atol=1e-4)
    assert contract.template == "dlib150"


@pytest.mark.parametrize("keep", [0, 1, 40, 300, 400, 20_000, 5_000_000, 22_466_065])
def test_truncated_anywhere(dat: Path, tmp_path: Path, keep: int) -> None:
    cut = tmp_path / "cut.dat"
    cut.write_bytes(dat.read_bytes()[:keep])
    with pytest.raises(ModelFileError, match=r"cut\.dat: .* at byte"):
        read_dlib(cut)


def test_bytes_left_over(dat: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer.dat"
    longer.write_bytes(dat.read_bytes() + b"x")
    with pytest.raises(ModelFileError, match="1 bytes left over at byte 22466066"):
        read_dlib(longer)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"\x77", "does not start a packed integer"),
        (4, b"x", "expected loss_metric"),
        (0x11F, b"\x01\x09", "layer version 9"),
        (0x150, b"bon_4", "layer 'bon_4'"),
        (0x160, b"\x00\x00\xc0\x7f", "not finite"),
    ],
)
def test_damage_is_named(
    dat: Path, tmp_path: Path, offset: int, value: bytes, message: str
) -> None:
    data = bytearray(dat.read_bytes())
    data[offset : offset + len(value)] = value
    path = tmp_path / "damaged.dat"
    path.write_bytes(bytes(data))
    with pytest.raises(ModelFileError, match=message):
        read_dlib(path)


def test_another_dlib_network_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "shape_predictor.dat"
    other.write_bytes(b"\x01\x01\x01\x05\x01\x44" + bytes(500))
    with pytest.raises(ModelFileError):
        load_dlib_resnet(other)
