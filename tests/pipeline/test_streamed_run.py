"""A run whose crops stay in their files gives the file of a run that holds them in memory."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.errors import RunError
from efquantface.pipeline.compress import compress
from formats import png, write_rec
from students import FAST

OPTIONS = {**FAST, "epochs": 1, "batch_size": 8}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    faces = make_faces(24, 4)
    images = [png(image) for image in faces.images]
    images[5] = b"damaged"
    write_rec(tmp_path / "f.rec", images, [int(i) for i in faces.identities])
    return tmp_path / "f.rec"


def numbers(run: Path) -> dict:
    found = json.loads((run / "metrics.json").read_text())
    return {name: found[name] for name in ("protocols", "parity", "skipped_faces")}


@pytest.mark.parametrize("cache", [True, False], ids=["cached", "spilled"])
def test_streamed_or_not_is_the_same_student(
    tmp_path: Path,
    record: Path,
    network: nn.Module,
    contract: FaceContract,
    cache: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EFQ_CACHE", str(tmp_path / "cache"))
    runs = [tmp_path / "held", tmp_path / "read"]
    for run, gigabytes in zip(runs, (4.0, 0.0), strict=True):
        options = {**OPTIONS, "cache": cache, "faces_gb": gigabytes}
        compress(network, record, run, contract=contract, **options)
    one, other = ((run / "student.onnx").read_bytes() for run in runs)
    assert one == other
    assert numbers(runs[0]) == numbers(runs[1])
    assert (runs[0] / "inputs.json").read_text() == (runs[1] / "inputs.json").read_text()
    assert "stay in their files" in (runs[1] / "log.txt").read_text()
    assert not (runs[1] / "teacher.npy").exists()
    banks = list((tmp_path / "cache").rglob("*.npy"))
    assert [stat.S_IMODE(bank.stat().st_mode) for bank in banks] == [0o600] * int(cache)


def test_a_run_goes_on_streamed_that_was_begun_in_memory(
    tmp_path: Path, record: Path, network: nn.Module, contract: FaceContract
) -> None:
    def compressed(run: str, **options: object) -> bytes:
        compress(network, record, tmp_path / run, contract=contract, **{**OPTIONS, **options})
        return (tmp_path / run / "student.onnx").read_bytes()

    wanted = compressed("whole")
    with pytest.raises(RunError, match="exists"):
        compressed("whole", faces_gb=0.0)
    (tmp_path / "whole" / "report.html").unlink()
    assert compressed("whole", faces_gb=0.0, resume=True) == wanted
