"""Training on CUDA, where there is one: the run ends as on the CPU, files run on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import make_faces
from efquantface import Embedder, FaceContract, compress
from efquantface.distill.settings import TrainData, TrainSettings
from efquantface.distill.trainer import fine_tune
from efquantface.importers.load import load_model
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
FAST: dict[str, Any] = {"benchmark": False, "cache": False, "quiet": True, "batch_size": 8}


@pytest.mark.parametrize(
    "options",
    [
        {"bits": "w8a8", "metric": "ours"},
        {"bits": "w4a4", "metric": "ekd", "layer_weight": 0.5},
        {"bits": "w8a8", "prune": 0.3},
        {"bits": "float", "prune": 0.3},
        {"bits": "w6a6", "compile": False, "loss": "none", "metric": "ours"},
    ],
    ids=str,
)
def test_a_run_on_cuda_ends_as_on_the_cpu(
    tmp_path: Path, network: nn.Module, contract: FaceContract, options: dict[str, Any]
) -> None:
    faces, runs = make_faces(), {}
    for device in ("cuda", "cpu"):
        runs[device] = compress(
            network,
            faces,
            tmp_path / device,
            contract=contract,
            epochs=2,
            device=device,
            **options,
            **FAST,
        )
    found = json.loads(runs["cuda"].run.metrics.read_text())
    assert found["history"]["device"] == torch.cuda.get_device_name()
    assert json.loads(runs["cpu"].run.metrics.read_text())["history"]["device"] == "cpu"
    assert {p.device.type for p in runs["cuda"].student.graph.parameters()} == {"cpu"}
    rows = {d: Embedder.open(run.run.onnx).embed(faces.images) for d, run in runs.items()}
    unit = {d: r / np.linalg.norm(r, axis=1, keepdims=True) for d, r in rows.items()}
    assert (unit["cuda"] * unit["cpu"]).sum(axis=1).mean() > 0.95


def test_a_run_stopped_on_cuda_goes_on_without_it(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    faces = make_faces()
    teacher = Embedder.open(network, contract=contract)
    pixels, rows = contract.pixels(faces.images), teacher.embed(faces.images)
    mirrored = teacher.embed(faces.images[:, :, ::-1])
    data = TrainData(pixels, rows, mirrored, pixels[:4], rows[:4], faces.identities)
    student = quantize(load_model(network, contract=contract), Scheme.parse("w4a4"))
    set_ranges(student.graph, [torch.from_numpy(pixels)])
    state = tmp_path / "state.pt"
    options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "metric": "ours", "compile": False}

    def stop(step: int, total: int, _: float) -> None:
        if step == total // 2 + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(student, data, TrainSettings(**options), state, device="cuda", progress=stop)
    student.graph.cpu()
    history = fine_tune(student, data, TrainSettings(**options), state, resume=True)
    assert history.device == "cpu"
    assert np.isfinite([loss for _, loss in history.held_out]).all()
