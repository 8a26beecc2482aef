"""The exported file: what it says of itself, and how loaders feed it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from conftest import SIZE, make_faces
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.export.onnx_writer import insightface_loader_normalization, write_onnx
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from students import student_of


@pytest.fixture
def exported(tmp_path: Path, network: nn.Module, contract: FaceContract) -> tuple[FaceModel, Path]:
    _, student = student_of(network, contract)
    path = tmp_path / "student.onnx"
    write_onnx(student, path)
    return student, path


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_dynamic_batch(exported: tuple[FaceModel, Path], batch: int) -> None:
    _, path = exported
    faces = make_faces().images[:7]
    together = Embedder.open(path).embed(faces)
    parts = [Embedder.open(path).embed(faces[i : i + batch]) for i in range(0, len(faces), batch)]
    np.testing.assert_allclose(np.concatenate(parts), together, atol=1e-5)


def test_file_is_what_it_says(exported: tuple[FaceModel, Path], contract: FaceContract) -> None:
    _, path = exported
    model = onnx.load(str(path))
    assert [o.version for o in model.opset_import] == [17]
    assert [i.name for i in model.graph.input] == ["input"]
    assert [o.name for o in model.graph.output] == ["embedding"]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3, SIZE, SIZE]
    assert Embedder.open(path).contract == contract
    kinds = {i.data_type for i in model.graph.initializer if np.prod(i.dims) > 64}
    assert kinds == {onnx.TensorProto.INT8}


@pytest.mark.parametrize("bits", ["w8a8", "w6a8", "w4a8"])
@pytest.mark.parametrize("preprocess", ["raw", "insightface"])
def test_insightface_loader(tmp_path: Path, network: nn.Module, preprocess: str, bits: str) -> None:
    """InsightFace's rule on node names picks the normalization that the contract says."""
    contract = FaceContract(SIZE, SIZE, 16, template="unknown").with_preprocess(preprocess)
    if preprocess == "raw":  # the network itself normalizes
        network = nn.Sequential(nn.BatchNorm2d(3, affine=False), network).eval()
        network[0].running_mean.fill_(127.5)
        network[0].running_var.fill_(127.5**2)
    _, student = student_of(network, contract, bits)
    path = tmp_path / "student.onnx"
    write_onnx(student, path)
    names = tuple(n.name for n in onnx.load(str(path)).graph.node)
    mean, std = insightface_loader_normalization(names)
    assert (mean, std) == (contract.mean[0], contract.std[0])
    faces = make_faces().images[:5]
    session = ort.InferenceSession(str(path))
    assert len(session.get_outputs()) == 1
    blob = ((faces.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)
    theirs = session.run(None, {session.get_inputs()[0].name: blob})[0]
    np.testing.assert_allclose(theirs, Embedder.open(path).embed(faces), atol=1e-4)


def test_pixels_survive_normalized_input(tmp_path: Path, network: nn.Module) -> None:
    """(x - 127.5) / 127.5 lies between two codes for every pixel; no two pixels may fall together."""
    contract = FaceContract(SIZE, SIZE, 16, template="unknown")
    _, student = student_of(network, contract)
    path = tmp_path / "student.onnx"
    write_onnx(student, path)
    model = onnx.load(str(path))
    first = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(first.output[0], onnx.TensorProto.UINT8, None)
    )
    session = ort.InferenceSession(model.SerializeToString())
    ramp = np.arange(SIZE * SIZE * 3).reshape(1, SIZE, SIZE, 3).astype(np.uint8)
    codes = session.run([first.output[0]], {"input": contract.normalize(ramp)})[0]
    np.testing.assert_array_equal(codes, contract.pixels(ramp))


def test_float_export_is_the_teacher(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    teacher = load_model(network, contract=contract)
    path = tmp_path / "float.onnx"
    write_onnx(teacher, path)
    faces = make_faces().images
    with torch.no_grad():
        expected = network(torch.from_numpy(contract.normalize(faces))).numpy()
    np.testing.assert_allclose(Embedder.open(path).embed(faces), expected, atol=1e-4)
    assert not any(
        n.op_type in ("PRelu", "BatchNormalization") for n in onnx.load(str(path)).graph.node
    )
