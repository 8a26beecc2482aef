"""A teacher's file and graph, opened once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.embedding.embedder import Embedder
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from efquantface.pipeline import preflight, teacher
from efquantface.pipeline.teacher import Teacher


def test_file_and_graph_are_one_network(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    path = tmp_path / "teacher.onnx"
    write_onnx(load_model(network, contract=contract), path)
    opened = Teacher.open(path, licence="ours")
    own, graph = opened.embedder(own=True), opened.embedder()
    assert own.path == path
    assert own is opened.embedder(own=True)
    assert graph is opened.embedder()
    assert own is not graph
    assert own.contract.licence == "ours"
    expected = Embedder.open(network, contract=contract).embed(faces.images)
    for embedder in (own, graph, opened.embedder(backend="torch")):
        np.testing.assert_allclose(embedder.embed(faces.images), expected, rtol=1e-3, atol=1e-4)


def test_a_module_has_no_file_of_its_own(network: nn.Module, contract: FaceContract) -> None:
    opened = Teacher.open(network, contract=contract)
    assert opened.embedder(own=True) is opened.embedder()
    assert opened.file is None
    assert opened.contract == contract


def test_digest_is_computed_once(
    network: nn.Module, contract: FaceContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def counted(model: object) -> str:
        calls.append(model)
        return preflight.model_digest(model)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher, "model_digest", counted)
    opened = Teacher.open(network, contract=contract)
    assert opened.digest == opened.digest
    assert len(calls) == 1
