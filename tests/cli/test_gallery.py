"""efq embed: one file or a folder of them, and what is said where neither is meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from efquantface.contract import FaceContract
from efquantface.embedding import stored
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from program import efq


@pytest.fixture
def model(tmp_path: Path, network: nn.Module, contract: FaceContract) -> Path:
    write_onnx(load_model(network, contract=contract), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_shards(
    model: Path, rec: Path, faces_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert efq("embed", model, rec, faces_dir, "-o", out, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"output": str(out), "shards": 2, "before": 0, "faces": 96, "skipped": 0}
    assert efq("embed", model, rec, faces_dir, "-o", out, "--shard", "2/2") == 0
    assert "48 embeddings in 1 shards" in capsys.readouterr().out
    assert efq("embed", model, tmp_path / "*.rec", "-o", f"{tmp_path}/other/") == 0
    np.testing.assert_array_equal(
        stored.read(out / "train.rec.npz").rows,
        stored.read(tmp_path / "other" / "train.rec.npz").rows,
    )
    for words, why in (
        ((rec, faces_dir, "-o", "e.npz"), "is one file; shards go into a folder"),
        ((rec, "-o", "e.npz", "--shard", "1/2"), "is one file"),
        ((rec, "-o", "e.npz", "--ray", "2"), "is one file"),
        (("memory://in/a.tar", "-o", "e.npz"), "is one file"),
        ((rec, "-o", "e.csv"), "written as .npz or .parquet, those of shards into a folder"),
        ((rec, "-o", out, "--shard", "3/2"), "I/N with I from 1 to N"),
        ((rec, "-o", out, "--ray", "0"), "from 1"),
        ((rec, "-o", out, "--embedding", "int4"), "choose from float32, int8"),
        ((tmp_path / "train.rex", "-o", out), "did you mean train.rec"),
        ((rec, model, "-o", out), "faces come from a folder or a file of these kinds"),
    ):
        assert efq("embed", model, *words) == 2
        assert why in " ".join(capsys.readouterr().err.split())


def test_one_file_of_codes(
    model: Path, rec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("f.npz", "c.npz", "c.parquet"):
        kind = "float32" if name == "f.npz" else "int8"
        assert efq("embed", model, rec, "-o", tmp_path / name, "--embedding", kind) == 0
    wanted = stored.read(tmp_path / "f.npz")
    for name in ("c.npz", "c.parquet"):
        found = stored.read(tmp_path / name)
        assert found.embeddings.dtype == np.int8
        assert found.scales is not None
        assert (np.abs(found.rows - wanted.rows) <= 0.5001 * found.scales[:, None]).all()
        assert found.names == wanted.names
    assert stored.read(tmp_path / "c.npz").digest() == stored.read(tmp_path / "c.parquet").digest()


def test_codes_beside_float(
    model: Path, faces_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(model, tmp_path / "other.onnx")
    words = ("evaluate", model, "--eval", f"folder={faces_dir}", "--embedding", "int8")
    for more in ((), ("--against", tmp_path / "other.onnx")):
        assert efq(*words, *more, "--json", "-") == 0
        metrics = {m["name"]: m for m in json.loads(capsys.readouterr().out)[0]["metrics"]}
        assert 0.999 < metrics["cosine to teacher"]["student"] < 1
        assert "teacher's gallery, student's probes" in metrics
    assert efq(*words) == 0
    assert "model.onnx int8" in capsys.readouterr().out.replace("\n", " ")
