"""Ctrl-C at any moment: nothing is left, or a run that can be gone on with or replaced."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from efquantface import compress
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.errors import RunError
from efquantface.pipeline import run_dir
from efquantface.pipeline.run_dir import RunDir
from efquantface.recipe import Recipe

OPTIONS: dict[str, Any] = {"epochs": 1, "batch_size": 8, "cache": False, "quiet": True, "prune": 0.3,
                           "bits": "w8a8", "round_to": 2}  # fmt: skip
COMPRESS = "efquantface.pipeline.method"

# what a stage begins with, in order: (module, name)
BEFORE = [
    ("efquantface.pipeline.teacher", "load_model"),
    ("efquantface.pipeline.inputs", "load_source"),
    ("efquantface.pipeline.inputs", "load_items"),
    ("efquantface.pipeline.inputs", "split"),
]
AFTER = [
    (COMPRESS, "calibration_batches"),
    (COMPRESS, "prune"),
    (COMPRESS, "make_start"),
    ("efquantface.pipeline.train", "fine_tune"),
    (COMPRESS, "restore_length"),
    (COMPRESS, "save_checkpoint"),
    ("efquantface.pipeline.deliver", "write_onnx"),
    ("efquantface.pipeline.deliver", "check_parity"),
    (COMPRESS, "compare"),
    (COMPRESS, "time_files"),
    (COMPRESS, "write_report"),
]


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def stop_after(function: Callable[..., Any]) -> Callable[..., Any]:
    def both(*args: Any, **kwargs: Any) -> Any:
        function(*args, **kwargs)
        raise KeyboardInterrupt

    return both


@pytest.fixture
def call(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> Callable[..., Any]:
    def run(**how: Any) -> Any:
        # time_files is only replaced, never run
        options = {**OPTIONS, "benchmark": True, **how}
        return compress(network, faces, tmp_path / "run", contract=contract, **options)

    return run


@pytest.fixture
def whole(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet,
    monkeypatch: pytest.MonkeyPatch,
) -> bytes:  # fmt: skip
    """The student of a run that nobody stopped."""
    monkeypatch.setattr(f"{COMPRESS}.time_files", lambda *_: None)
    compress(network, faces, tmp_path / "whole", contract=contract, **OPTIONS)
    return (tmp_path / "whole" / "student.onnx").read_bytes()


@pytest.mark.parametrize(("module", "name"), BEFORE)
def test_stopped_while_reading(
    module: str, name: str, call: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(importlib.import_module(module), name, stop)
    with pytest.raises(KeyboardInterrupt):
        call()
    assert list(tmp_path.iterdir()) == []


def test_stopped_at_every_stage_it_goes_on(
    call: Callable[..., Any], tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run, stopped at one stage after the other, ends with the student of an unbroken one."""
    first = True
    for module, name in AFTER:
        with monkeypatch.context() as patch:
            patch.setattr(importlib.import_module(module), name, stop)
            with pytest.raises(KeyboardInterrupt):
                call(resume=not first)
        first = False
        log = (tmp_path / "run" / "log.txt").read_text().splitlines()
        assert "--resume" in log[-1], name
        assert "--force" in log[-1], name
        kept = {p.name for p in (tmp_path / "run").iterdir()} - run_dir._STARTED
        kept.discard(run_dir.LOCK)
        if kept:  # before, a plain call begins anew
            with pytest.raises(RunError, match=r"--resume to go on, --force to replace"):
                call()
    assert kept
    call(resume=True)
    assert (tmp_path / "run" / "student.onnx").read_bytes() == whole
    files = {p.name for p in (tmp_path / "run").iterdir()}
    assert not any("unchecked" in f or "partial" in f or f == "state.pt" for f in files)


@pytest.mark.parametrize("name", ["train", "save_checkpoint", "compare"])
def test_stopped_it_can_be_replaced(
    name: str, call: Callable[..., Any], tmp_path: Path, whole: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module(COMPRESS), name, stop)
        with pytest.raises(KeyboardInterrupt):
            call()
    call(force=True, seed=0)
    assert (tmp_path / "run" / "student.onnx").read_bytes() == whole


def recipe(**values: Any) -> Recipe:
    return Recipe.create({"teacher": "t", "faces": "f", **values})


def steps_of_making(path: Path, monkeypatch: pytest.MonkeyPatch, at: int, **how: Any) -> bool:
    """Make a run's directory, stopped after its ``at``-th change to the disk; whether it was."""
    done = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            found = function(*args, **kwargs)
            done += 1
            if done == at:
                raise KeyboardInterrupt
            return found

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", counted(Path.mkdir))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        patch.setattr(run_dir.shutil, "rmtree", counted(shutil.rmtree))
        patch.setattr(run_dir, "write_text", counted(run_dir.write_text))
        try:
            RunDir(path).make(recipe(**how), force=True, resume=False)
        except KeyboardInterrupt:
            return True
    return False


def test_stopped_while_a_directory_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1
    while steps_of_making(tmp_path / str(at), monkeypatch, at):
        directory = RunDir(tmp_path / str(at))
        if any(directory.path.iterdir()):
            directory.make(recipe(), force=False, resume=True)
        else:
            directory.make(recipe(), force=False, resume=False)
        assert Recipe.read(directory.recipe) == recipe()
        at += 1
    assert at > 3


def test_stopped_while_an_old_run_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, stopped = 1, True
    while stopped:
        path = tmp_path / str(at)
        directory = RunDir(path)
        directory.make(recipe(bits="w6a6"), force=False, resume=False)
        for name in ("a.txt", "state.pt", "student.onnx", "z/inside.txt"):
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_text("old")
        stopped = steps_of_making(path, monkeypatch, at)
        # an old training state never meets a new recipe
        is_new = Recipe.read(directory.recipe) == recipe()
        assert not (is_new and (path / "state.pt").exists())
        directory.make(recipe(), force=True, resume=False)
        assert {p.name for p in path.iterdir()} == {"recipe.yaml", "env.json"}
        at += 1
    assert at > 6


def test_what_a_killed_process_left_is_no_document(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "recipe.yaml.partial").write_text("teach")
    RunDir(path).make(recipe(), force=False, resume=False)
    assert Recipe.read(path / "recipe.yaml") == recipe()
