"""Exported files in the real runtimes: which patterns run in integers, and that they compute it."""

from __future__ import annotations

import json
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
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ParityError
from efquantface.export import openvino, saturation
from efquantface.export.onnx_writer import insightface_loader_normalization, write_onnx
from efquantface.export.openvino import for_openvino, write_openvino
from efquantface.export.operators import executed
from efquantface.export.packing import PACKED_OPSET, stored_bits
from efquantface.export.parity import check_parity
from efquantface.export.scales import float_form, write_scales
from efquantface.graph import ops
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.graph.graph import module_nodes, module_of, name_of
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Bits, Scheme
from efquantface.runtime.processor import lacks_vnni
from efquantface.runtime.sessions import onnxruntime_session

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


def slopes(most: float) -> nn.PReLU:
    prelu = nn.PReLU(8)
    prelu.weight.data = torch.linspace(-1.55, most, 8)
    return prelu


torch.manual_seed(0)  # of the patterns' weights
PATTERNS: dict[str, tuple[nn.Module, dict[str, int], dict[str, object]]] = {
    "conv": (nn.Conv2d(8, 8, 3, padding=1), {"QLinearConv": 2}, {}),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), {"QLinearConv": 2}, {}),
    "7x7 depthwise": (nn.Conv2d(8, 8, 7, groups=8), {"QLinearConv": 2}, {}),
    "conv relu6": (nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU6()), {"QLinearConv": 2}, {}),
    "add": (nn.Conv2d(8, 8, 1), {"QLinearConv": 2, "QLinearAdd": 1}, {"residual": True}),
    "prelu": (
        nn.Sequential(nn.Conv2d(8, 8, 1), slopes(1)),
        {"QLinearConv": 3, "QLinearAdd": 1, "Clip": 0},
        {},
    ),
    "steep prelu": (
        nn.Sequential(nn.Conv2d(8, 8, 1), slopes(2.39)),
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
    "zero pad": (ops.ZeroPad(4, bottom=1, right=1), {"QLinearConv": 1, "Pad": 1}, {"channels": 12}),
}
EIGHT_BITS = pytest.param(
    "w8a8", marks=pytest.mark.skipif(lacks_vnni(), reason="OpenVINO saturates without VNNI")
)
UNPACKING = {"BitShift", "BitwiseAnd", "Cast", "Concat", "Reshape", "Split"}  # folded at load


def student_of(
    module: nn.Module, contract: FaceContract, bits: str = "w8a8", symmetric: bool = False
) -> tuple[FaceModel, FaceModel]:
    torch.manual_seed(0)
    teacher = load_model(module.eval(), contract=contract)
    student = quantize(teacher, Scheme(Bits.parse(bits), symmetric=symmetric))
    faces = make_faces().images
    set_ranges(student.graph, [torch.from_numpy(contract.pixels(faces))])
    return teacher, student


@pytest.mark.parametrize(
    "kind", ["w8a8", "w6a8", "w4a8", "w4a4", "w8a8 symmetric", "w6a6 symmetric"]
)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_runs_in_integers(
    pattern: str, kind: str, tmp_path: Path, contract: FaceContract
) -> None:
    body, wanted, options = PATTERNS[pattern]
    bits, _, symmetric = kind.partition(" ")
    module = Pattern(body, **options)  # type: ignore[arg-type]
    teacher, student = student_of(module, contract, bits, bool(symmetric))
    path = tmp_path / "student.onnx"
    write_onnx(student, path)
    found = executed(path)
    counts = found.counts
    assert found.convolutions == found.integer_convolutions
    assert found.products == found.integer_products == 1
    # one Add shifts the pixels before they are quantized
    assert not (set(found.in_float) - {"Add"}) | (UNPACKING & set(counts)), counts
    assert counts["Add"] == 1
    assert counts["QGemm"] == 1
    if kind in ("w8a8", "w6a8", "w4a8"):  # otherwise integer Clips come on top
        for op, count in wanted.items():
            assert counts.get(op, 0) == count, counts
    faces = make_faces(seed=3).images
    embeddings = teacher.embed_pixels(torch.from_numpy(contract.pixels(faces))).numpy()
    parity = check_parity(student, path, faces, embeddings)
    assert all(layer.max_codes <= 1 for layer in parity.layers), parity.layers
    assert parity.embedding_error < 1e-4
    assert parity.cosine > 0.9999
    assert parity.fake_quantized_cosine > 0.999


@pytest.mark.parametrize("bits", ["w6a8", "w4a8", "w5a6"])
def test_packed_file_holds_the_same_integers(
    bits: str, tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    _, student = student_of(network, contract, bits)
    packed, plain = tmp_path / "packed.onnx", tmp_path / "plain.onnx"
    write_onnx(student, packed)
    write_onnx(student, plain, packed=False)
    opsets = [onnx.load(str(p)).opset_import[0].version for p in (packed, plain)]
    assert [opset >= PACKED_OPSET for opset in opsets] == [True, False]
    faces = make_faces().images
    np.testing.assert_array_equal(
        Embedder.open(packed).embed(faces), Embedder.open(plain).embed(faces)
    )
    weights = sum(getattr(m, "latent", torch.empty(0)).numel() for m in student.graph.modules())
    saved = plain.stat().st_size - packed.stat().st_size
    share = 1 - stored_bits(int(bits[1])) / 8
    assert saved > 0.9 * share * weights - 2000  # the operators that unpack


@pytest.mark.parametrize("symmetric", [False, True])
def test_scales_rebuild_the_integers(
    tmp_path: Path, network: nn.Module, contract: FaceContract, symmetric: bool
) -> None:
    """The float network computes the student but for its activations' rounding; scales give codes."""
    _, student = student_of(network, contract, "w4a8", symmetric)
    beside = write_scales(student, tmp_path / "out.onnx")
    found = json.loads(beside.read_text())
    faces = make_faces().images
    by_student = student.embed_pixels(torch.from_numpy(contract.pixels(faces))).numpy()
    by_float = Embedder.open(tmp_path / "out.onnx").embed(faces)
    cosine = (by_float * by_student).sum(1) / np.linalg.norm(by_float, axis=1)
    assert (cosine / np.linalg.norm(by_student, axis=1)).mean() > 0.999
    floating = {name_of(n): m for n, m in module_nodes(float_form(student).graph)}
    for node, module in module_nodes(student.graph):
        if isinstance(module, QuantConv2d | QuantLinear):
            entry = found["weights"][name_of(node)]
            step = torch.tensor(entry["scales"]).view(-1, *(1,) * (module.weight.dim() - 1))
            codes, _ = module.weight_codes()
            assert torch.equal((floating[name_of(node)].weight / step).round(), codes.float())
    assert all(entry["signed"] is symmetric for entry in found["activations"].values())


def test_saturation_is_found_where_it_can_happen(
    network: nn.Module, contract: FaceContract
) -> None:
    _, eight = student_of(network, contract, "w8a8")
    _, seven = student_of(network, contract, "w7a8")
    named = saturation.saturating_layers(eight)
    assert named
    assert not any("tail" in name for name in named)  # depthwise
    assert saturation.saturating_layers(seven) == []
    assert "w7a8" in saturation.describe(eight)
    assert "session.x64quantprecision=1" in saturation.describe(eight)
    assert "cannot" in saturation.describe(seven)


def test_layers_that_can_saturate_have_zero_points_of_their_own(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    """ONNX Runtime's exact sums replace a layer's zero points; shared ones would be replaced twice."""
    _, student = student_of(network, contract)
    write_onnx(student, tmp_path / "student.onnx")
    model = onnx.load(str(tmp_path / "student.onnx"))
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    read = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
    large = [n for n in read if values.get(n.input[0], np.zeros(1)).dtype == np.int8]
    large = [n for n in large if np.abs(values[n.input[0]].astype(int)).max() > 64]
    assert large
    zeros = [n.input[2] for n in large]
    assert len(set(zeros)) == len(zeros)
    assert all(not values[name].any() for name in zeros)


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


@pytest.mark.parametrize("bits", ["w7a8", EIGHT_BITS])
def test_openvino_gives_the_same_embeddings(
    tmp_path: Path, network: nn.Module, contract: FaceContract, bits: str
) -> None:
    _, student = student_of(network, contract, bits)
    path = tmp_path / "student.onnx"
    write_onnx(student, path)
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
    session = onnxruntime_session(model.SerializeToString())
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
    _, student = student_of(network, contract, "w7a8")  # which saturates in nobody's session
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


@pytest.mark.parametrize("steep", [True, False])
@pytest.mark.parametrize("bits", ["w7a8", EIGHT_BITS, "w6a8", "w4a4"])
def test_openvino_gets_its_own_placement(
    tmp_path: Path, network: nn.Module, contract: FaceContract, bits: str, steep: bool
) -> None:
    for child in network.modules():
        if isinstance(child, nn.PReLU) and not steep:
            child.weight.data.clamp_(max=1)
    _, student = student_of(network, contract, bits)
    form, count = for_openvino(student)
    assert count == 3
    before, after = (_quantized_before_sums(made) for made in (student, form))
    assert before > after == 0
    lines = write_openvino(student, tmp_path / "student.xml")
    assert "3 PReLUs" in lines[1]
    assert not (tmp_path / "student.export.onnx").exists()
    faces = make_faces().images
    found = Embedder.open(tmp_path / "student.xml").embed(faces)
    expected = form.embed_pixels(torch.from_numpy(contract.pixels(faces))).numpy()
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1)
    assert (cosine / np.linalg.norm(expected, axis=1)).mean() > (0.99 if bits == "w4a4" else 0.9995)
    assert "_prelu" not in "".join(
        n for n, _ in student.graph.named_modules()
    )  # a copy was changed


def test_openvino_after_training_tried_a_slope_above_one(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    """``x + max(w x, 0)`` is no PReLU with ``w > 0``, so training stops at ``w = 0``."""
    for child in network.modules():
        if isinstance(child, nn.PReLU):
            child.weight.data.clamp_(max=1)
    _, student = student_of(network, contract, "w7a8")
    product = next(m for _, m in module_nodes(student.graph) if isinstance(m, QuantAffine))
    with torch.no_grad():
        product.latent += product.latent.abs() / 2 + 0.1
    assert (product.latent > 0).any()
    product.weight.sum().backward()
    assert product.latent.grad is not None
    assert (product.latent.grad > 0).all()  # those at the limit can come back
    assert (product.weight <= 0).all()
    assert (product.weight == 0).any()
    save_checkpoint(student, tmp_path / "student.safetensors")
    lines = write_openvino(load_model(tmp_path / "student.safetensors"), tmp_path / "student.xml")
    assert "3 PReLUs" in lines[1]


def _quantized_before_sums(model: FaceModel) -> int:
    """Convolutions whose own quantizer stands between them and a sum that alone reads it."""
    graph, found = model.graph, 0
    for node, module in module_nodes(graph):
        for x in node.args if isinstance(module, ops.Add) else ():
            quantized = isinstance(module_of(graph, x), ActivationQuantizer)
            source = module_of(graph, x.args[0]) if quantized else None
            found += isinstance(source, QuantConv2d) and len(x.users) == 1
    return found


@pytest.mark.parametrize(("bits", "kept"), [("w8a8", True), ("w7a8", False)])
def test_openvino_file_that_saturates_here_is_kept_with_a_warning(
    tmp_path: Path,
    network: nn.Module,
    contract: FaceContract,
    monkeypatch: pytest.MonkeyPatch,
    bits: str,
    kept: bool,
) -> None:
    """A file that no check can vouch for on this machine may still be right on the next."""
    monkeypatch.setattr(openvino, "lacks_vnni", lambda: True)
    monkeypatch.setattr(openvino, "mean_cosine", lambda _, b: 1.0 if b.dtype == np.float64 else 0.9)
    _, student = student_of(network, contract, bits)
    path = tmp_path / "student.xml"
    if kept:
        assert "w7a8" in write_openvino(student, path)[-1]
    else:
        with pytest.raises(ParityError, match="report"):
            write_openvino(student, path)
    assert path.exists() is kept
