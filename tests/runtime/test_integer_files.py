"""Exported files in the real runtimes: which patterns run in integers, and that they compute it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.export.onnx_writer import insightface_loader_normalization, write_onnx
from efquantface.export.parity import check_parity, operators
from efquantface.loading import load_model
from efquantface.models.model import FaceModel
from efquantface.models.ops import ZeroPad
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.embedder import Embedder

SIZE = 32


class Pattern(nn.Module):
    """Stem, the pattern under test, embedding."""

    def __init__(self, body: nn.Module, channels: int = 8, residual: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body, self.residual = body, residual
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        y = self.body(x)
        return self.fc(torch.flatten(self.pool(x + y if self.residual else y), 1))


def slopes() -> nn.PReLU:
    prelu = nn.PReLU(8)
    prelu.weight.data = torch.linspace(-1.55, 2.39, 8)
    return prelu


PATTERNS: dict[str, tuple[nn.Module, dict[str, int], dict[str, object]]] = {
    "conv": (nn.Conv2d(8, 8, 3, padding=1), {"QLinearConv": 2}, {}),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), {"QLinearConv": 2}, {}),
    "7x7 depthwise": (nn.Conv2d(8, 8, 7, groups=8), {"QLinearConv": 2}, {}),
    "conv relu6": (nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU6()), {"QLinearConv": 2}, {}),
    "add": (nn.Conv2d(8, 8, 1), {"QLinearConv": 2, "QLinearAdd": 1}, {"residual": True}),
    "prelu": (
        nn.Sequential(nn.Conv2d(8, 8, 1), slopes()),
        {"QLinearConv": 3, "QLinearAdd": 1, "Clip": 1},
        {},
    ),
    "pre-batchnorm": (
        nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)),
        {"QLinearConv": 3},
        {},
    ),
    "max pool": (nn.MaxPool2d(3, 2, 1), {"QLinearConv": 1}, {}),
    "average pool": (nn.AvgPool2d(2), {"QLinearConv": 1, "QLinearAveragePool": 1}, {}),
    "zero pad": (ZeroPad(4, bottom=1, right=1), {"QLinearConv": 1, "Pad": 1}, {"channels": 12}),
}
FLOAT_OPS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "Relu", "PRelu", "AveragePool"}
FLOAT_OPS |= {"DequantizeLinear", "GlobalAveragePool", "Mul"}


def student_of(
    module: nn.Module, contract: FaceContract, scheme: str = "w8a8"
) -> tuple[FaceModel, FaceModel]:
    torch.manual_seed(0)
    teacher = load_model(module.eval(), contract=contract)
    student = quantize(teacher, Scheme.parse(scheme))
    faces = make_faces().images
    set_ranges(student.graph, [torch.from_numpy(contract.pixels(faces))])
    return teacher, student


@pytest.mark.parametrize("bits", ["w8a8", "w4a4"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_runs_in_integers(
    pattern: str, bits: str, tmp_path: Path, contract: FaceContract
) -> None:
    body, wanted, options = PATTERNS[pattern]
    teacher, student = student_of(Pattern(body, **options), contract, bits)  # type: ignore[arg-type]
    path = tmp_path / "student.onnx"
    write_onnx(student, path)
    counts, convolutions, integer = operators(path)
    assert convolutions == integer
    assert not FLOAT_OPS & set(counts), counts
    assert counts["QGemm"] == 1
    if bits == "w8a8":  # below 8 bits, integer Clips come on top
        for op, count in wanted.items():
            assert counts[op] == count, counts
    faces = make_faces(seed=3).images
    embeddings = teacher.embed_pixels(torch.from_numpy(contract.pixels(faces))).numpy()
    parity = check_parity(student, path, faces, embeddings)
    assert all(layer.max_steps <= 1 for layer in parity.layers), parity.layers
    assert parity.embedding_error < 1e-4
    assert parity.cosine > 0.9999
    assert parity.fake_quantized_cosine > 0.999


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


def test_openvino_gives_the_same_embeddings(exported: tuple[FaceModel, Path]) -> None:
    _, path = exported
    faces = make_faces().images
    by_ort = Embedder.open(path).embed(faces)
    by_openvino = Embedder.open(path, backend="openvino").embed(faces)
    cosine = (by_ort * by_openvino).sum(1) / np.linalg.norm(by_ort, axis=1)
    assert (cosine / np.linalg.norm(by_openvino, axis=1)).mean() > 0.999


def test_numpy_integer_reference(tmp_path: Path, contract: FaceContract) -> None:
    """The first convolution in plain NumPy int32, from the file's own initializers."""
    torch.manual_seed(3)
    _, student = student_of(Pattern(nn.MaxPool2d(2)), contract)
    path = tmp_path / "student.onnx"
    write_onnx(student, path)
    model = onnx.load(str(path))
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    by_output = {n.output[0]: n for n in model.graph.node}
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    source, weight, bias = (by_output[name] for name in conv.input)
    in_scale, in_zero = values[source.input[1]], values[source.input[2]]
    codes, steps = values[weight.input[0]].astype(np.int32), values[weight.input[1]]
    bias_codes = values[bias.input[0]]
    assert bias_codes.dtype == np.int32
    out = next(
        n
        for n in model.graph.node
        if n.op_type == "QuantizeLinear" and n.input[0] == conv.output[0]
    )
    out_scale, out_zero = values[out.input[1]], values[out.input[2]]

    faces = make_faces().images[:2]
    pixels = contract.pixels(faces).astype(np.int32) - int(in_zero)
    padded = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    accumulated = np.einsum("nchwij,ocij->nohw", windows, codes) + bias_codes[None, :, None, None]
    factor = (in_scale * steps / out_scale).astype(np.float32)[None, :, None, None]
    expected = np.rint(accumulated.astype(np.float32) * factor) + int(out_zero)
    expected = np.clip(expected, 0, 255).astype(np.uint8)

    model.graph.output.append(
        onnx.helper.make_tensor_value_info(out.output[0], onnx.TensorProto.UINT8, None)
    )
    session = ort.InferenceSession(model.SerializeToString())
    found = session.run([out.output[0]], {"input": contract.normalize(faces)})[0]
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("preprocess", ["raw", "insightface"])
def test_insightface_loader(tmp_path: Path, network: nn.Module, preprocess: str) -> None:
    """InsightFace's rule on node names picks the normalization that the contract says."""
    contract = FaceContract(SIZE, SIZE, 16, template="unknown").with_preprocess(preprocess)
    if preprocess == "raw":  # the network itself normalizes
        network = nn.Sequential(nn.BatchNorm2d(3, affine=False), network).eval()
        network[0].running_mean.fill_(127.5)
        network[0].running_var.fill_(127.5**2)
    _, student = student_of(network, contract)
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
