"""What gives no embedding is named for what it looks like, wherever its size is found out."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_tensor_value_info

from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.errors import NotRecognizingError
from efquantface.importers.load import load_model
from efquantface.importers.looks import RECOGNITION, looks_like
from efquantface.pipeline.compress import compress
from efquantface.pipeline.preflight import check_embedding
from efquantface.verbs.inspect import describe_model
from looking import file_of, network


@pytest.mark.parametrize(
    ("values", "look"),
    [
        (1, "a score"),
        (2, "two classes"),
        (3, "gender and age"),
        (5, "5 scores"),
        (10, "five landmarks"),
        (136, "68 landmarks"),
        (212, "106 landmarks"),
        (3309, "68 landmarks"),
        (2622, "a classifier of 2,622 people"),
        (8631, "a classifier of 8,631 people"),
    ],
)
def test_values_that_are_no_embedding(
    tmp_path: Path, faces_dir: Path, values: int, look: str
) -> None:
    """Declared, left open, or said in a contract: nothing is read or trained."""
    module = network(values)
    for name, declared in (("declared.onnx", True), ("open.onnx", False)):
        file_of(module, tmp_path / name, declared=declared)
        with pytest.raises(NotRecognizingError, match=f"{name}: gives {values:,} values.*{look}"):
            compress(tmp_path / name, faces_dir, tmp_path / "run", quiet=True, anyway=values < 16)
        lines = describe_model(tmp_path / name).lines
        assert any(line.startswith("cannot be compressed") and look in line for line in lines)
    contract = FaceContract(32, 32, values, template="unknown")
    with pytest.raises(NotRecognizingError, match=f"Sequential: gives {values:,} values.*{look}"):
        compress(module, faces_dir, tmp_path / "run", contract=contract, quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("values", [16, 64, 192, 512, 2048, 4096])
def test_embeddings_pass(tmp_path: Path, values: int) -> None:
    model = load_model(file_of(network(values), tmp_path / "net.onnx"))
    check_embedding(model, Console(quiet=True))


def test_a_classifier_is_told_how_to_end(tmp_path: Path) -> None:
    model = load_model(file_of(network(10575), tmp_path / "net.onnx"))
    with pytest.raises(NotRecognizingError, match=r"extract_model.*--anyway"):
        check_embedding(model, Console(quiet=True))
    check_embedding(model, Console(quiet=True), anyway=True)


@pytest.mark.parametrize(
    "shapes",
    [
        [(12800, 1), (3200, 1), (12800, 4), (3200, 4), (12800, 10), (3200, 10)],
        [(1, 102400), (1, 25600)],
        [("n", 4200, 4), ("n", 4200, 2), ("n", 4200, 10)],
        [("n", "anchors", 4), ("n", "anchors", 2)],
        [("a", "b")] * 9,
    ],
)
def test_detectors(tmp_path: Path, shapes: list[tuple[object, ...]]) -> None:
    path = file_of(network(16), tmp_path / "det.onnx")
    model = onnx.load(str(path))
    made = [make_tensor_value_info(f"o{i}", TensorProto.FLOAT, s) for i, s in enumerate(shapes)]
    del model.graph.output[:]
    model.graph.output.extend(made)
    assert looks_like(model) == "a detector"
    onnx.save(model, str(path))
    with pytest.raises(NotRecognizingError, match=r"det\.onnx: looks like a detector.*'o0'"):
        load_model(path)


@pytest.mark.parametrize(
    "shapes",
    [
        [("n", 512)],
        [(512,)],
        [("n", 1, 1, 512)],
        [("n", 512), ("n", 1)],
        [("n", 1, 1, 512), ("n", 1)],
        [("n", "d")],
    ],
)
def test_forms_of_recognition(shapes: list[tuple[object, ...]], tmp_path: Path) -> None:
    model = onnx.load(str(file_of(network(16), tmp_path / "net.onnx")))
    del model.graph.output[:]
    for i, shape in enumerate(shapes):
        model.graph.output.append(make_tensor_value_info(f"o{i}", TensorProto.FLOAT, shape))
    assert looks_like(model) == RECOGNITION
