"""One process in a run's folder, and what a resumed run has to begin with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from efquantface import compress
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.errors import FinishedError, OutOfMemoryError, RunError
from efquantface.pipeline import method
from efquantface.pipeline.lock import alone_in

OPTIONS = {"epochs": 0, "quiet": True, "cache": False, "benchmark": False}
HOLD = """
import json, sys
from pathlib import Path
from efquantface.pipeline.lock import alone_in, this_process
folder = Path(sys.argv[1])
with alone_in(folder, folder / "env.json"):
    (folder / "env.json").write_text(json.dumps({"process": this_process()}))
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        environment = tmp_path / "run" / "env.json"
        pid = json.loads(environment.read_text())["process"]["pid"]
        assert pid == other.pid
        with (
            pytest.raises(RunError, match=rf"another process works in it \(process {pid} on"),
            alone_in(tmp_path / "run", environment),
        ):
            pass
        other.kill()  # a killed process holds nothing
        other.wait()
        with alone_in(tmp_path / "run", environment):
            pass


def test_a_resumed_run_has_the_same_faces(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(method, "compare", _stop)
        with pytest.raises(KeyboardInterrupt):
            compress(network, faces, tmp_path / "run", contract=contract, **OPTIONS)
    fewer = faces.subset(np.arange(len(faces) - 4))
    with pytest.raises(RunError, match=rf"images \({len(faces)} then, {len(fewer)} now\)"):
        compress(network, fewer, tmp_path / "run", contract=contract, resume=True, **OPTIONS)
    compress(network, faces, tmp_path / "run", contract=contract, resume=True, **OPTIONS)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_finished_run_is_not_resumed(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    run = tmp_path / "run"
    done = compress(network, faces, run, contract=contract, **OPTIONS)
    before = done.run.metrics.read_bytes()
    with pytest.raises(FinishedError, match="is finished"):
        compress(network, faces, run, contract=contract, resume=True, **OPTIONS)
    assert done.run.metrics.read_bytes() == before


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_out_of_memory_says_what_to_set(
    error: Exception, tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(method, "make_start", fails)
    with pytest.raises(OutOfMemoryError, match="--memory-gb"):
        compress(network, faces, tmp_path / "run", contract=contract, **OPTIONS)
