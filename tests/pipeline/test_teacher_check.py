"""An imported graph is compared with its own file or module, and what differs is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional as F

from conftest import SmallFaceNet, randomize
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.errors import ImportMismatchError, ModelFileError, NotRunnableError
from efquantface.export.onnx_writer import write_onnx
from efquantface.graph.ops import Clamp
from efquantface.importers import torch_fx
from efquantface.importers.load import load_model
from efquantface.importers.onnx.handlers import HANDLERS
from efquantface.pipeline.compress import compress
from efquantface.pipeline.teacher_check import check_teacher
from efquantface.verbs.export import export_model
from foreign_nets import ArcFaceMbf
from onnx_forms import BN, CONV, GEMM, TAIL, W, array, node, save

RELU = node("Relu", ["c"], "x")
FAST = {"quiet": True, "benchmark": False, "cache": False, "bits": "w8a8", "epochs": 0}


def wrong_relu(op):
    """An importer's fault: negative values pass by a little."""
    return op.add(Clamp(-0.5, None), op.activation())


@pytest.fixture
def onnx_file(tmp_path: Path, network: nn.Module, contract: FaceContract) -> Path:
    write_onnx(load_model(network, contract=contract), tmp_path / "t.onnx")
    return tmp_path / "t.onnx"


def test_a_file_and_its_graph(onnx_file: Path, faces: FaceSet) -> None:
    found = check_teacher(onnx_file, load_model(onnx_file), faces.images)
    assert found is not None
    assert found.describe() == "teacher checked: 16 crops, cosine 1.00000 to its own file"
    assert not found.problem


def test_few_faces_are_filled_up(onnx_file: Path, faces: FaceSet) -> None:
    for few in (None, faces.images[:1], faces.images[:5]):
        found = check_teacher(onnx_file, load_model(onnx_file), few)
        assert found is not None
        assert found.crops == 16


def test_a_module_keeps_its_modes(contract: FaceContract) -> None:
    module = randomize(SmallFaceNet()).train()
    model = load_model(module, contract=contract)
    module.block.eval()
    modes = [m.training for m in module.modules()]
    found = check_teacher(module, model)
    assert found is not None
    assert found.reference == "the module itself"
    assert found.cosine > 0.99999
    assert modes == [m.training for m in module.modules()]


def test_a_checkpoint_is_compared_with_what_it_was_recognized_as(tmp_path: Path) -> None:
    path = tmp_path / "mbf.pt"
    torch.save(randomize(ArcFaceMbf((1, 1, 1, 1), scale=1)).state_dict(), path)
    model = load_model(path)
    found = check_teacher(path, model)
    assert found is not None
    assert found.describe().endswith("1.00000 to the network it was recognized as")
    with torch.no_grad():
        next(model.graph.parameters()).mul_(0.5)
    with pytest.raises(ImportMismatchError, match=r"mbf\.pt"):
        check_teacher(path, model)


@pytest.mark.parametrize("opset", [13, 17])
def test_training_mode_is_named(tmp_path: Path, opset: int) -> None:
    """Statistics of the batch instead of the stored ones, as torch.onnx.export(training=...) leaves."""
    attributes = {"training_mode": 1} if opset > 13 else {}
    outputs = ["x", "mean", "var"] + ["m1", "v1"] * (opset <= 13)
    norm = helper.make_node(
        "BatchNormalization", ["c", "s", "b", "m", "v"], outputs, "norm", **attributes
    )
    constants = {**W, **BN, **GEMM, "m": BN["m"] * 20}
    path = save(tmp_path / "t.onnx", [CONV, norm, *TAIL], constants, opset=opset)
    model = load_model(path)
    with pytest.raises(
        ImportMismatchError, match=r"model\.eval\(\) before torch\.onnx\.export"
    ) as e:
        check_teacher(path, model)
    assert "'x', of BatchNormalization 'norm'" in str(e.value)
    assert str(path) in str(e.value)
    assert "cosine" in str(e.value)


@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_the_first_tensor_of_a_wrong_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: str | int
) -> None:
    path = save(tmp_path / "t.onnx", [CONV, RELU, *TAIL], {**W, **GEMM}, inp=(batch, 3, 8, 8))
    assert check_teacher(path, load_model(path)) is not None
    monkeypatch.setitem(HANDLERS, "Relu", wrong_relu)
    with pytest.raises(ImportMismatchError, match=r"'x', of Relu 'the_x'.*fault of efquantface"):
        check_teacher(path, load_model(path))


def test_a_value_whose_batch_is_not_in_front_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [
        CONV,
        node("Transpose", ["c"], "t", perm=[1, 0, 2, 3]),
        node("Gather", ["t", "index"], "g", axis=0),
        node("Relu", ["g"], "x"),
        *TAIL,
    ]
    constants = {**W, "gw": array(5, 64), "gb": array(5), "index": np.array(2)}
    path = save(tmp_path / "t.onnx", nodes, constants)
    monkeypatch.setitem(HANDLERS, "Relu", wrong_relu)
    with pytest.raises(ImportMismatchError, match="'x', of Relu 'the_x'"):
        check_teacher(path, load_model(path))


def test_folding_is_told_from_importing(onnx_file: Path) -> None:
    model = load_model(onnx_file)
    with torch.no_grad():
        next(model.graph.parameters()).mul_(0.7)
    with pytest.raises(ImportMismatchError, match="once layers are folded"):
        check_teacher(onnx_file, model)


def test_length_counts(tmp_path: Path) -> None:
    path = save(tmp_path / "t.onnx", [CONV, RELU, *TAIL], {**W, **GEMM})
    model = load_model(path)
    with torch.no_grad():
        last = list(model.graph.parameters())[-2:]
        for values in last:
            values.mul_(2)
    with pytest.raises(ImportMismatchError, match=r"2\.000 to 2\.000 times as long"):
        check_teacher(path, model)


def test_a_modules_layer_is_named(
    network: nn.Module, contract: FaceContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(torch_fx._MODULES, nn.ReLU6, lambda m, s: Clamp(0.0, None))
    with torch.no_grad():
        network.block.body[7].bias.add_(9)  # type: ignore[union-attr, index, operator]
    with pytest.raises(ImportMismatchError, match="'relu', of ReLU6"):
        check_teacher(network, load_model(network, contract=contract))


def test_a_module_that_is_random(contract: FaceContract) -> None:
    class Random(SmallFaceNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(F.dropout(x, 0.5, True))

    module = randomize(Random())
    with pytest.raises(ImportMismatchError, match="another embedding each time"):
        check_teacher(module, load_model(module, contract=contract))


def test_half_precision(tmp_path: Path) -> None:
    half = {k: v.astype(np.float16) for k, v in {**W, **GEMM}.items()}
    path = save(tmp_path / "h.onnx", [CONV, RELU, *TAIL], half)
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, str(path))
    found = check_teacher(path, load_model(path))
    assert found is not None
    assert found.least == 0.9995
    assert found.cosine > 0.99999


@pytest.mark.parametrize("fault", ["constant", "zero", "infinite"])
def test_outputs_that_say_nothing(tmp_path: Path, fault: str) -> None:
    weights = {**W, **GEMM}
    if fault == "infinite":
        weights["w"], weights["gw"] = W["w"] * np.float32(1e25), GEMM["gw"] * np.float32(1e25)
    else:
        weights["gw"] = GEMM["gw"] * 0
        weights["gb"] = GEMM["gb"] * (fault == "constant")
    path = save(tmp_path / "t.onnx", [CONV, RELU, *TAIL], weights)
    said = "not finite" if fault == "infinite" else "does not depend on the crop"
    with pytest.raises(ModelFileError, match=rf"t\.onnx: .*{said}"):
        check_teacher(path, load_model(path))


def test_equal_crops_are_not_the_files_fault(onnx_file: Path, faces: FaceSet) -> None:
    assert check_teacher(onnx_file, load_model(onnx_file), faces.images[[0] * 20]) is not None


def test_what_does_not_run_is_written_in_a_form_that_does(tmp_path: Path) -> None:
    """MXNet's slopes without axes: ONNX Runtime refuses them where no axis is as long."""
    nodes = [CONV, node("PRelu", ["c", "p"], "x"), *TAIL]
    path = save(tmp_path / "m.onnx", nodes, {**W, **GEMM, "p": array(4)})
    with pytest.raises(NotRunnableError, match="--float"):
        check_teacher(path, load_model(path))
    out = tmp_path / "out.onnx"
    said = export_model(str(path), out, "onnx", as_float=True, preprocess=None, force=False)
    assert "teacher not checked" in said[-1]
    assert check_teacher(out, load_model(out)) is not None


def test_a_float_export_is_checked(
    tmp_path: Path, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.onnx"
    arguments = {"as_float": True, "preprocess": None, "force": False}
    assert "teacher checked" in export_model(str(onnx_file), out, "onnx", **arguments)[-1]
    monkeypatch.setitem(HANDLERS, "Gemm", wrong_relu)
    with pytest.raises(ImportMismatchError):
        export_model(str(onnx_file), tmp_path / "other.onnx", "onnx", **arguments)
    assert not (tmp_path / "other.onnx").exists()


def test_a_run_stops_or_goes_on_anyway(
    tmp_path: Path, onnx_file: Path, faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = lambda op: op.add(Clamp(-3.0, 3.0), op.activation())  # noqa: E731
    monkeypatch.setitem(HANDLERS, "Clip", wrong)
    with pytest.raises(ImportMismatchError, match=r"t\.onnx.*Clip"):
        compress(onnx_file, faces, tmp_path / "run", **FAST)
    assert not (tmp_path / "run").exists()
    done = compress(onnx_file, faces, tmp_path / "run", anyway=True, **FAST)
    stored = json.loads(done.run.metrics.read_text())["teacher_check"]
    assert stored["cosine"] < 0.9999
    assert "Clip" in stored["problem"]


def test_the_result_stands_in_the_metrics(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    done = compress(network, faces, tmp_path / "run", contract=contract, **FAST)
    stored = json.loads(done.run.metrics.read_text())["teacher_check"]
    assert stored["cosine"] > 0.99999
    assert (stored["crops"], stored["problem"]) == (16, "")


def test_a_loaded_model_has_no_file_to_be_checked_by(
    network: nn.Module, contract: FaceContract
) -> None:
    model = load_model(network, contract=replace(contract))
    assert check_teacher(model, model) is None
