"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
from torch import nn

from efquantface import Embedder, compress
from efquantface.console import set_verbosity
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.evaluation.sets import EvalSet
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model

MODULES = (
    "callbacks",
    "console",
    "evaluation.metrics",
    "evaluation.result",
    "evaluation.run",
    "pipeline.compress",
    "report.results",
    "verbs.evaluate",
    "verbs.export",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(
    name: str, tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("EFQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"efquantface.{name}")
    world = {
        "network": network, "contract": contract, "faces": faces, "folder": tmp_path / "run",
        "Embedder": Embedder, "EvalSet": EvalSet,
    }  # fmt: skip
    if name == "verbs.export":
        world["folder"], world["onnx_file"] = tmp_path, tmp_path / "network.onnx"
        write_onnx(load_model(network, contract=contract), tmp_path / "network.onnx")
    if name == "report.results":
        world["results"] = compress(
            network, faces, tmp_path / "run", contract=contract, epochs=0, benchmark=False,
            cache=False, quiet=True,
        ).results  # fmt: skip
    tests = [t for t in doctest.DocTestFinder().find(module, extraglobs=world) if t.examples]
    assert tests, "no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    for test in tests:
        set_verbosity(-1)  # examples show values, not progress
        runner.run(test, out=said.append)
    set_verbosity(0)
    assert runner.failures == 0, "".join(said)
