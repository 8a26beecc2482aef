"""Embeddings of folders of any size: the file's content, resuming, what cannot be read."""

from __future__ import annotations

import doctest
import stat
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from torch import nn

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.embedding.embedder import Embedder
from efquantface.errors import CropError, DataError
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from efquantface.verbs import embed as module
from efquantface.verbs.embed import embed_faces


@pytest.fixture
def model(tmp_path: Path, network: nn.Module, contract: FaceContract) -> Path:
    write_onnx(load_model(network, contract=contract), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PART", 10)


def test_npz_and_parquet(model: Path, faces_dir: Path, faces: FaceSet, tmp_path: Path) -> None:
    (faces_dir / faces.names[13]).write_bytes(b"no image")
    kept = [i for i in range(len(faces)) if i != 13]
    expected = Embedder.open(model).embed(faces.images[kept], flip=True)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for name in ("e.npz", "e.parquet"):
        out = tmp_path / name
        counts = embed_faces(model, faces_dir, out, flip=True, normalize=True, quiet=True)
        assert counts == (len(kept), 1)
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert not out.with_name(name + ".parts").exists()
        if name == "e.npz":
            with np.load(out, allow_pickle=False) as stored:
                rows, names = stored["embeddings"], stored["names"].tolist()
                people = stored["identities"].tolist()
        else:
            table = pyarrow.parquet.read_table(out)
            rows = np.array(table["embedding"].to_pylist(), np.float32)
            names, people = table["name"].to_pylist(), table["identity"].to_pylist()
        np.testing.assert_allclose(rows, expected, atol=1e-6)
        assert rows.dtype == np.float32
        assert names == [faces.names[i] for i in kept]
        assert people == [faces.identity_names[faces.identities[i]] for i in kept]


def test_a_stopped_run_goes_on(
    model: Path, faces_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_faces(model, faces_dir, tmp_path / "whole.npz", quiet=True)
    real, calls = module.embed_part, list[int]()

    def stopping(*args: object) -> object:
        calls.append(int(args[2][0]))  # type: ignore[index]
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "embed_part", stopping)
    with pytest.raises(KeyboardInterrupt):
        embed_faces(model, faces_dir, tmp_path / "e.npz", quiet=True)
    assert not (tmp_path / "e.npz").exists()
    embed_faces(model, faces_dir, tmp_path / "e.npz", quiet=True)
    assert calls == [0, 10, 20, 30, 30, 40]
    a, b = (np.load(tmp_path / name) for name in ("whole.npz", "e.npz"))
    for key in ("embeddings", "names", "identities"):
        np.testing.assert_array_equal(a[key], b[key])
    # parts of another model, flags or list of images are not gone on with
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        embed_faces(model, faces_dir, tmp_path / "f.npz", quiet=True)
    calls[:] = [0] * 5
    embed_faces(model, faces_dir, tmp_path / "f.npz", flip=True, quiet=True)
    assert calls[5:] == [0, 10, 20, 30, 40]


def test_unlabelled_faces(model: Path, faces_dir: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, path in enumerate(sorted(faces_dir.rglob("*.png"))[:5]):
        path.rename(flat / f"{index}.png")
    embed_faces(model, flat, tmp_path / "e.npz", quiet=True)
    assert np.load(tmp_path / "e.npz")["identities"].tolist() == [""] * 5


def test_errors(model: Path, faces_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.npz"
    with pytest.raises(DataError, match=r"e\.csv.*\.npz or \.parquet"):
        embed_faces(model, faces_dir, tmp_path / "e.csv")
    out.write_bytes(b"mine")
    with pytest.raises(DataError, match="exists"):
        embed_faces(model, faces_dir, out)
    assert out.read_bytes() == b"mine"
    embed_faces(model, faces_dir, out, force=True, quiet=True)
    assert len(np.load(out)["names"]) == 48
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 1 images"):
        embed_faces(model, odd, tmp_path / "odd.npz", quiet=True)
    from efquantface.data.images import write_image

    write_image(odd / "a.png", np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(CropError, match="50x50"):
        embed_faces(model, odd, tmp_path / "odd.npz", quiet=True)


def test_examples(
    model: Path, faces_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.rename(tmp_path / "student.onnx")
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(module)
    assert (result.failed, result.attempted) == (0, 2)
