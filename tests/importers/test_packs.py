"""Of a pack, folder or zip, the recognizer is taken; where there is not one, every file is named."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from efquantface.data.faces import FaceSet
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ModelFileError, NotRecognizingError
from efquantface.importers.contracts import resolve
from efquantface.importers.load import load_model
from efquantface.pipeline.compress import compress
from efquantface.pipeline.paths import check_model
from looking import file_of, network

PACK = {"1k3d68": 3309, "2d106det": 212, "genderage": 3, "w600k_r50": 64}


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EFQ_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "buffalo_l"
    folder.mkdir()
    for name, values in PACK.items():
        file_of(network(values), folder / f"{name}.onnx")
    return folder


def zipped(folder: Path, inside: str) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"{inside}{file.name}")
    return path


@pytest.mark.parametrize("inside", [None, "", "buffalo_l/"])
def test_the_recognizer_is_taken(pack: Path, faces: FaceSet, inside: str | None) -> None:
    given = pack if inside is None else zipped(pack, inside)
    check_model(str(given))
    model = load_model(given)
    assert model.name == "w600k_r50.onnx"
    front = inside or ""
    assert f"in {given.name}: {front}genderage.onnx: gender and age" in model.notes
    assert f"in {given.name}: {front}w600k_r50.onnx: recognition" in model.notes
    wanted = Embedder.open(pack / "w600k_r50.onnx").embed(faces.images[:2])
    np.testing.assert_array_equal(Embedder.open(given).embed(faces.images[:2]), wanted)


def test_a_pack_is_compressed(pack: Path, faces_dir: Path, tmp_path: Path) -> None:
    settings = {"quiet": True, "benchmark": False, "cache": False, "bits": "w8a8", "epochs": 0}
    run = compress(pack, faces_dir, tmp_path / "run", anyway=True, **settings)
    assert run.parity is not None
    assert run.student.contract.embedding_size == 64


def test_none_and_several(pack: Path) -> None:
    file_of(network(128), pack / "second.onnx")
    with pytest.raises(NotRecognizingError, match=r"2 recognizers .*second\.onnx: recognition"):
        resolve(pack)
    with pytest.raises(NotRecognizingError, match=r"unpack it"):
        resolve(zipped(pack, ""))
    for name in ("second", "w600k_r50"):
        (pack / f"{name}.onnx").unlink()
    with pytest.raises(NotRecognizingError, match=r"no network that recognizes.*106 landmarks"):
        resolve(pack)


def test_what_is_no_pack(tmp_path: Path) -> None:
    (tmp_path / "m.zip").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ModelFileError, match=r"m\.zip: not a readable zip file"):
        resolve(tmp_path / "m.zip")
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
        archive.writestr("broken.onnx", "<html>")
    with pytest.raises(NotRecognizingError, match=r"broken\.onnx: not a readable ONNX"):
        resolve(tmp_path / "e.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match="no pack of networks"):
        resolve(tmp_path / "empty")


@pytest.mark.parametrize("name", ["net.onnx", "net.pth", "net.safetensors", "net.dat"])
def test_stand_ins_for_models(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    with pytest.raises(ModelFileError, match=f"{name}: is a pointer of Git LFS"):
        load_model(path)
    path.write_bytes(b"<!DOCTYPE html><html>quota")
    with pytest.raises(ModelFileError, match=f"{name}: is a web page"):
        Embedder.open(path)


def test_weights_outside_of_the_file(pack: Path, faces: FaceSet) -> None:
    """Of a zip file they are unpacked, too."""
    wanted = load_model(pack).embed_pixels
    path = pack / "w600k_r50.onnx"
    onnx.save_model(
        onnx.load(str(path)),
        str(path),
        save_as_external_data=True,
        location="w600k_r50.onnx.data",
        size_threshold=0,
    )
    model = load_model(zipped(pack, "buffalo_l/"))
    pixels = torch.from_numpy(model.contract.pixels(faces.images[:1]))
    torch.testing.assert_close(model.embed_pixels(pixels), wanted(pixels))
