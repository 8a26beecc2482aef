"""Several processes of one training: the same numbers as one, and an end that nobody waits for."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import efquantface
from efquantface.distill.optimizer import parameter_groups
from efquantface.distill.settings import TrainSettings
from efquantface.distill.started import Started
from efquantface.errors import RecipeError, RuntimeMissingError
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.importers.load import load_model
from efquantface.pipeline.handed_on import train_the_same, trained_in
from efquantface.quantize.placement import quantize
from efquantface.quantize.scheme import Scheme

JOB = Path(__file__).parent / "training_job.py"
TESTS = JOB.parents[1]
# pairs across a batch, layers as shares of a batch, and batches that two cannot halve
SETTINGS = {
    "epochs": 3,
    "batch_size": 7,
    "lr": 1e-4,
    "metric": "ours",
    "layer_weight": 0.5,
    "damping": 0.0,  # it turns at the border between two codes, where sums that round otherwise part
}


def start(folder: Path, count: int, **job: Any) -> list[subprocess.Popen[str]]:
    folder.mkdir(exist_ok=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    path = os.pathsep.join([str(Path(efquantface.__file__).parents[1]), str(TESTS)])
    told = json.dumps({"settings": SETTINGS, **job})
    made = []
    for rank in range(count):
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        if count > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            env |= {"LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
            env |= {"MASTER_PORT": str(port)}
        command = [sys.executable, str(JOB), str(folder), told]
        made.append(
            subprocess.Popen(
                command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    return made


def ended(processes: list[subprocess.Popen[str]]) -> list[str]:
    said = [p.communicate(timeout=300)[0] for p in processes]
    assert [p.returncode for p in processes] == [0] * len(processes), "\n".join(said)
    return said


def losses(folder: Path, rank: int = 0) -> list[float]:
    lines = (folder / f"losses{rank}").read_text().splitlines()
    return [float(line.split()[1]) for line in lines]


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "state.pt", weights_only=True)


def check_close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found["step"] == wanted["step"]
    for name, value in wanted["model"].items():
        torch.testing.assert_close(found["model"][name], value, rtol=0, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    ended(start(folder, 1))
    return folder


def test_two_processes_train_what_one_trains(alone: Path, tmp_path: Path) -> None:
    ended(start(tmp_path, 2))
    assert len(losses(tmp_path)) == 24
    np.testing.assert_allclose(losses(tmp_path)[:10], losses(alone)[:10], rtol=1e-4)
    assert losses(tmp_path, 1) == losses(tmp_path, 0)
    check_close(state(tmp_path), state(alone))
    wanted = np.load(alone / "bank0.npy")
    for rank in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"bank{rank}.npy"), wanted)


def test_damped_weights_are_the_same_in_both_processes(tmp_path: Path) -> None:
    settings = {"epochs": 3, "batch_size": 8, "lr": 1e-4, "damping": 0.5}
    for count in (1, 2):
        ended(start(tmp_path / str(count), count, bits="w4a8", settings=settings))
    one, two = tmp_path / "1", tmp_path / "2"
    assert losses(two, 1) == losses(two, 0)
    np.testing.assert_allclose(losses(two)[:5], losses(one)[:5], rtol=1e-4)


def test_one_goes_on_with_what_two_began(alone: Path, tmp_path: Path) -> None:
    for process in start(tmp_path, 2, stop=10):
        process.communicate(timeout=300)
    assert state(tmp_path)["step"] == 10
    ended(start(tmp_path, 1, resume=True))
    assert len(losses(tmp_path)) == 24
    check_close(state(tmp_path), state(alone))


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "silent"])
def test_a_lost_process_ends_the_run_and_its_state_stays(tmp_path: Path, kill: bool) -> None:
    quick = {"_BEAT": 0.2, "_SILENT": 3.0, "_MERCY": 0.5, "_PATIENCE": 3.0}
    processes = start(tmp_path, 2, die=9, who=1, kill=kill, patience=quick)
    try:
        said = processes[0].communicate(timeout=300)[0]
    finally:
        processes[1].send_signal(signal.SIGKILL)
        processes[1].communicate()
    assert processes[0].returncode not in (0, -signal.SIGKILL)
    assert "go on with --resume" in said
    assert state(tmp_path)["step"] >= 8  # the last epoch's, or the last step's


def test_what_one_cannot_do_is_said_by_the_first(tmp_path: Path) -> None:
    """Eight images a step are too few for nine; the second process meets it, too."""
    few = {**SETTINGS, "batch_size": 2}
    said = [p.communicate(timeout=300)[0] for p in start(tmp_path, 3, settings=few)]
    assert "2 images a step for 3 devices" in said[0]


GIVEN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


def test_who_was_started() -> None:
    assert Started.find(None, "cpu", {}) == Started()
    assert Started.find(1, "cuda:1", {}).device("cuda:1") == "cuda:1"
    two = Started.find(2, "cpu", {})
    assert two.starts
    assert (two.rank, two.count) == (0, 2)
    nodes = {**GIVEN, "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    found = Started.find(None, "cuda", nodes)
    assert (found.rank, found.count, found.local_count, found.starts) == (5, 8, 4, False)
    assert found.device("cuda") == "cuda:1"
    assert (
        Started.find(1, "cpu", {"WORLD_SIZE": "4"}) == Started()
    )  # of nobody who starts processes


@pytest.mark.parametrize(
    ("devices", "device", "environ", "told"),
    [
        (3, "cpu", GIVEN, "devices 3: 2 processes were started .* --nproc-per-node 3"),
        (1, "cpu", GIVEN, "devices 1: 2 processes"),
        (None, "cuda:1", GIVEN, "write cuda"),
        (2, "cuda:0", {}, "write cuda"),
        (None, "cpu", {**GIVEN, "RANK": "x"}, "RANK='x' in the environment"),
        (None, "cpu", {**GIVEN, "RANK": "2"}, "no starter's numbers"),
        (None, "cpu", {**GIVEN, "WORLD_SIZE": "9" * 50}, "a number is expected"),
        (None, "cpu", {**GIVEN, "LOCAL_WORLD_SIZE": "3"}, "no starter's numbers"),
    ],
)
def test_mismatch_says_what_to_do(
    devices: int | None, device: str, environ: dict[str, str], told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        Started.find(devices, device, environ)


def test_more_devices_than_gpus() -> None:
    if torch.cuda.is_available():
        pytest.skip("for machines without a GPU")
    with pytest.raises(RuntimeMissingError, match="2 devices: this machine has 0 GPUs"):
        Started.find(2, "cuda", {}).launch("cuda")


def test_a_saved_student_has_its_parameters_in_the_same_order(
    tmp_path: Path, network: torch.nn.Module, contract: Any
) -> None:
    """A state is resumed in a graph that was read again; moments go by their number."""
    student = quantize(load_model(network, contract=contract), Scheme.parse("w4a8"))
    save_checkpoint(student, tmp_path / "s.safetensors")
    again = load_model(tmp_path / "s.safetensors")
    train_the_same(again.graph, trained_in(student.graph))
    names = []
    for model in (student, again):
        called = {id(p): name for name, p in model.graph.named_parameters()}
        groups = parameter_groups(model.graph, TrainSettings())
        names.append([[called[id(p)] for p in group["params"]] for group in groups])
    assert names[0] == names[1]
    assert sum(map(len, names[0])) < len(called)  # not all are trained
