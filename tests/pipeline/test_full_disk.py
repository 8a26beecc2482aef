"""A run on a disk where one operation fails: a typed error, nothing half-written, and it goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from efquantface import compress, files
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.embedding import cache
from efquantface.errors import WriteError
from efquantface.pipeline import room
from failing_disk import FailingDisk

OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 16, "quiet": True, "bits": "w8a8"}
NUMBERS = (errno.ENOSPC, errno.EIO, errno.EACCES)
_LOG = "log.txt"


@pytest.fixture
def call(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:  # fmt: skip
    monkeypatch.setenv("EFQ_CACHE", str(tmp_path / "cache"))

    def run(name: str, disk: files.Disk, **how: Any) -> bytes:
        with monkeypatch.context() as patch:
            patch.setattr(files, "disk", disk)
            done = compress(
                network,
                faces,
                tmp_path / name,
                contract=contract,
                benchmark=False,
                **OPTIONS,
                **how,
            )
        return done.run.onnx.read_bytes()

    return run


def chosen(done: list[tuple[str, str]]) -> list[int]:
    """One operation of each file, of another kind from file to file; all where the campaign asks."""
    places = [at for at, (_, name) in enumerate(done) if name != _LOG]
    if os.environ.get("EFQ_ALL_FAULTS"):
        return places
    files_of = list(dict.fromkeys(done[at][1].removesuffix(".partial") for at in places))
    found = []
    for turn, file in enumerate(files_of):
        own = [at for at in places if done[at][1].removesuffix(".partial") == file]
        found.append(own[turn % len(own)])
    return found


def test_one_operation_after_the_other_fails(call: Callable[..., Any], tmp_path: Path) -> None:
    counted = FailingDisk()
    whole = call("whole", counted, cache=False)
    places = chosen(counted.done)
    assert {name.removesuffix(".partial") for _, name in counted.done} >= {
        "recipe.yaml", "env.json", "inputs.json", "state.pt", "student.safetensors", "student.onnx",
        "metrics.json", "report.html",
    }  # fmt: skip
    for turn, at in enumerate(places):
        name = f"run{at}"
        with pytest.raises(WriteError) as told:
            call(name, FailingDisk(at, NUMBERS[turn % len(NUMBERS)]), cache=False)
        assert f"{name}" in str(told.value)
        folder = tmp_path / name
        assert "--resume" in str(told.value) or not folder.exists()
        there = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
        assert not [file for file in there if "partial" in file or "unchecked" in file]
        again = call(name, FailingDisk(), cache=False, resume=(folder / "recipe.yaml").is_file())
        assert again == whole


def test_a_log_that_cannot_be_written_ends_no_run(call: Callable[..., Any], tmp_path: Path) -> None:
    counted = FailingDisk()
    whole = call("whole", counted, cache=False)
    at = next(at for at, (kind, name) in enumerate(counted.done) if (kind, name) == ("write", _LOG))
    assert call("run", FailingDisk(at), cache=False) == whole


def test_a_cache_that_cannot_be_written_ends_no_run(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = call("whole", FailingDisk(), cache=False)
    monkeypatch.setattr(cache, "_refused", set())

    class NoCache(FailingDisk):
        def make_folder(self, path: Path, mode: int = 0o777) -> None:
            if "cache" in path.parts:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().make_folder(path, mode)

    assert call("run", NoCache(), cache=True) == whole
    assert not (tmp_path / "cache").exists()


def test_a_cache_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache, "_refused", set())
    (tmp_path / "file").write_text("")
    for name in "ab":
        cache.write_cached(tmp_path / "file" / "sub" / f"{name}.npz", rows=np.zeros((2, 2)))
    assert capsys.readouterr().out.count("not cached") == 1


def test_too_little_room_is_said_beforehand(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda _: 1_000_000)
    with pytest.raises(WriteError, match=r"a run needs about \d+ MB there, 1 MB are left"):
        call("run", FailingDisk())
    assert not (tmp_path / "run").exists()
