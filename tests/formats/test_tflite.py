"""LiteRT computes the student: the same codes, in one part, for any batch."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from conftest import SIZE, SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ExportError, MissingPackageError, RuntimeMissingError
from efquantface.export.onnx_writer import to_onnx
from efquantface.export.parity import _runtime_codes
from efquantface.formats.delivery import deliver
from efquantface.formats.litert.checking import check_litert
from efquantface.formats.litert.model import to_litert
from efquantface.formats.table import FORMATS
from efquantface.graph import ops
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.graph.graph import INPUT, GraphBuilder, module_nodes, name_of
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Bits, Scheme
from efquantface.runtime.litert import Interpreter
from efquantface.runtime.litert_file import parse, with_outputs
from efquantface.verbs.export import export_model
from litert_files import LiteRtFile
from random_graphs import SIZE as SMALL
from random_graphs import graphs
from students import Pattern, student_of

FACES = make_faces().images[:8]


class ReluNet(nn.Module):
    """MobileNet's block with ReLU6, a residual sum and two ways of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.wide, self.deep = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.back, self.pool = nn.Conv2d(16, 8, 1), nn.AvgPool2d(2)
        self.fc = nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        relu = nn.functional.relu6
        x = relu(self.stem(x))
        x = self.pool(x + self.back(relu(self.deep(relu(self.wide(x))))))
        return self.fc(x.mean((2, 3)))


def delivered(model: FaceModel, folder: Path) -> list[str]:
    return deliver(model, FORMATS["tflite"], folder / "model.tflite")


@pytest.mark.parametrize("bits", ["w8a8", "w6a8", "w4a8", "w6a6", "w4a4"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_relu_network_has_the_codes_of_onnxruntime(
    tmp_path: Path, contract: FaceContract, bits: str, symmetric: bool
) -> None:
    """Two kernels that know nothing of each other give the same integers, and the same embeddings."""
    torch.manual_seed(0)
    _, student = student_of(randomize(ReluNet()), contract, bits, symmetric)
    onnx_file, path = to_onnx(student), tmp_path / "model.tflite"
    (tmp_path / "s.onnx").write_bytes(onnx_file.SerializeToString())
    lines = delivered(student, tmp_path)
    assert "XNNPACK: 7 of 7 layers equal" in lines[2] or bits in ("w6a6", "w4a4"), lines
    x = contract.normalize(FACES)
    if not symmetric:  # ONNX Runtime on x86 computes signed codes in float
        right, _ = _runtime_codes(onnx_file, tmp_path / "s.onnx", student, x, False)
        for name, codes in _codes(path, student, x).items():
            assert (codes == right[name]).all(), name
    by_onnx, by_litert = (Embedder.open(p).embed(FACES) for p in (tmp_path / "s.onnx", path))
    np.testing.assert_allclose(by_litert, by_onnx, atol=1e-5 * np.abs(by_onnx).max())


def _codes(path: Path, student: FaceModel, x: np.ndarray) -> dict[str, np.ndarray]:
    """Codes of maps, in the student's own terms and layout."""
    data = path.read_bytes()
    model = parse(data, path.name)
    names = {
        name_of(node): module.qparams()[1]
        for node, module in module_nodes(student.graph)
        if isinstance(module, ActivationQuantizer)
    }
    places = tuple(model.names()[name] for name in names)
    outputs = Interpreter(with_outputs(data, model, places), path.name)(x)
    found = {}
    for (name, zero_point), place, codes in zip(names.items(), places, outputs, strict=True):
        moved = codes.astype(int) - model.tensors[place].zero_points[0] + zero_point
        found[name] = moved.transpose(0, 3, 1, 2) if moved.ndim == 4 else moved
    return found


@pytest.mark.parametrize("bits", ["w8a8", "w4a8", "w4a4"])
@pytest.mark.parametrize("steep", [True, False])
def test_a_prelu_is_a_product_and_a_sum(
    tmp_path: Path, network: nn.Module, contract: FaceContract, bits: str, steep: bool
) -> None:
    """Only sums may round otherwise, by a code at the edge between two."""
    for child in network.modules():
        if isinstance(child, nn.PReLU) and not steep:
            child.weight.data.clamp_(max=1)
    _, student = student_of(network, contract, bits)
    delivered(student, tmp_path)
    xnnpack, _ = check_litert(student, tmp_path / "model.tflite")
    sums = {name_of(node) for node, m in module_nodes(student.graph) if isinstance(m, ops.Add)}
    for layer in xnnpack.layers:
        assert layer.max_codes <= 1
        assert not layer.differing or layer.name.removesuffix("_q") in sums
        assert layer.differing < 1e-3


def test_biases_and_weights_are_integers_with_scales(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    """As LiteRT's own schema reads the file: int8 a channel, int32 biases in products of scales."""
    _, student = student_of(network, contract, "w4a8")
    file = LiteRtFile(to_litert(student))
    kinds = file.kinds()
    assert kinds.count("CONV_2D") == 3
    assert kinds[-1] == "FULLY_CONNECTED"
    for operator in file.graph.operators:
        if file.kind(operator) not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        source, weight, bias = (file.operand(operator, index) for index in range(3))
        axis = 3 if file.kind(operator) == "DEPTHWISE_CONV_2D" else 0
        assert weight.quantization.quantizedDimension == axis
        assert len(weight.quantization.scale) == weight.shape[axis]
        product = source.quantization.scale[0] * weight.quantization.scale
        np.testing.assert_array_equal(bias.quantization.scale, product)
        assert not np.any(weight.quantization.zeroPoint)
        assert np.abs(file.value(weight).astype(int)).max() <= 127


@pytest.mark.parametrize("preprocess", ["insightface", "imagenet", "raw", "adaface", "unit"])
@pytest.mark.parametrize("bits", ["w8a8", None])
def test_the_file_takes_what_the_teacher_takes(
    tmp_path: Path, preprocess: str, bits: str | None
) -> None:
    """Normalized crops or raw pixels, of other sizes than square; in colour or grey inside."""
    contract = FaceContract(SIZE, SIZE + 8, 16, template="unknown").with_preprocess(preprocess)
    torch.manual_seed(0)
    module = Pattern(nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()))
    if preprocess == "raw":  # networks that take pixels normalize them themselves
        module.stem.weight.data /= 128
    teacher = load_model(module.eval(), contract=contract)
    model = teacher
    if bits:
        faces = make_faces(4, 2, size=SIZE + 8).images[:, :SIZE]
        model = quantize(teacher, Scheme(Bits.parse(bits)))
        set_ranges(model.graph, [torch.from_numpy(contract.pixels(faces))])
    lines = delivered(model, tmp_path)
    assert f"(N,{SIZE},{SIZE + 8},3)" in lines[1]
    assert contract.color in lines[1]
    embedder = Embedder.open(tmp_path / "model.tflite")
    assert embedder.contract == contract
    faces = make_faces(3, 1, size=SIZE + 8, seed=1).images[:, :SIZE]
    right = model.embed_pixels(torch.from_numpy(contract.pixels(faces))).numpy()
    found = embedder.embed(faces)
    cosine = (found * right).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(right, axis=1)
    assert cosine.min() > (0.9995 if bits else 1 - 1e-6)


@given(graphs(), st.sampled_from(["w8a8", "w4a4", None]))
@settings(max_examples=25)
def test_random_graphs(gm: fx.GraphModule, bits: str | None) -> None:
    """Whatever small graph: XNNPACK's codes are the student's, and a float file equals PyTorch."""
    contract = FaceContract(SMALL, SMALL, 5, template="unknown")
    builder = GraphBuilder()
    at = builder.add("normalize", ops.Normalize([127.5] * 3, [127.5] * 3), INPUT)
    names = {INPUT: at}
    for node, module in module_nodes(gm):
        inputs = [names[name_of(a)] for a in node.args if isinstance(a, fx.Node)]
        names[name_of(node)] = builder.add(name_of(node), module, *inputs)
    model = FaceModel(builder.finish(list(names.values())[-1]), contract)
    if bits:
        faces = make_faces(6, 2, size=SMALL).images
        model = quantize(model, Scheme(Bits.parse(bits)))
        set_ranges(model.graph, [torch.from_numpy(contract.pixels(faces))])
    with tempfile.TemporaryDirectory() as folder:
        assert len(delivered(model, Path(folder))) == 4


def test_dead_channels_and_far_scales(tmp_path: Path, contract: FaceContract) -> None:
    """Channels without weights, and sums of values of very different size."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8))
    with torch.no_grad():
        body[0].weight[2:4] = 0
        body[0].bias[2] = 0
        body[0].weight[5:] *= 1e-4
    for residual in (False, True):
        _, student = student_of(Pattern(body, 8, residual), contract)
        assert len(delivered(student, tmp_path)) == 4
    with torch.no_grad():
        body[0].weight.mul_(1e5)
    _, student = student_of(Pattern(body, 8, True), contract)
    assert len(delivered(student, tmp_path)) == 4


def test_what_litert_cannot_compute_is_said_before_anything_is_written(
    tmp_path: Path, contract: FaceContract
) -> None:
    builder = GraphBuilder()
    at = builder.add("norm", ops.Normalize([127.5] * 3, [127.5] * 3), INPUT)
    at = builder.add("bent", ops.Function("erf"), at)
    at = builder.add("odd", ops.Function("pow", 2.5), at)
    at = builder.add("flat", ops.Flatten(), at)
    model = FaceModel(builder.finish(builder.add("fc", ops.Linear(3 * SIZE**2, 16), at)), contract)
    with pytest.raises(ExportError, match=r"computes no bent \(erf\), odd \(pow\)"):
        delivered(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_equal_constants_are_one_and_the_digest_is_none_of_them(contract: FaceContract) -> None:
    """32 zeros are a constant's bytes as well as the digest's before it is known."""
    builder = GraphBuilder()
    at = builder.add("norm", ops.Normalize([127.5] * 3, [127.5] * 3), INPUT)
    at = builder.add("shift", ops.Shift((8,)), builder.add("part", ops.Slice(3, 0, 8), at))
    at = builder.add("flat", ops.Flatten(), at)
    fc = ops.Linear(3 * SIZE * 8, 16)
    model = FaceModel(builder.finish(builder.add("fc", fc, at)), contract)
    rows = Interpreter(to_litert(model), "made")(contract.normalize(FACES))[0]
    right = model.embed_pixels(torch.from_numpy(contract.pixels(FACES))).numpy()
    np.testing.assert_allclose(rows, right, atol=1e-5)


def test_a_student_of_full_range_stays_as_it_is(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    """LiteRT adds in 32 bits everywhere."""
    _, student = student_of(network, contract, full_range=True)
    save_checkpoint(student, tmp_path / "student.safetensors")
    words = {"as_float": False, "preprocess": None, "force": False}
    for file, kind in (("s.tflite", "tflite"), ("s.onnx", "onnx")):
        lines = export_model(str(tmp_path / "student.safetensors"), tmp_path / file, kind, **words)
        assert ("made portable" in lines[0]) == (kind == "onnx")
    assert (tmp_path / "s.tflite").read_bytes() == to_litert(
        load_model(tmp_path / "student.safetensors")
    )


@pytest.mark.parametrize(
    ("package", "error"),
    [("flatbuffers", MissingPackageError), ("ai_edge_litert", RuntimeMissingError)],
)
def test_a_missing_package_is_said_with_its_extra(
    tmp_path: Path,
    network: nn.Module,
    contract: FaceContract,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    error: type[Exception],
) -> None:
    for name in [n for n in sys.modules if n.startswith("efquantface.formats.litert")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    _, student = student_of(network, contract)
    with pytest.raises(error, match=r"efquantface\[litert\]"):
        delivered(student, tmp_path)
    assert not list(tmp_path.iterdir())


def test_small_face_net_is_the_same_for_any_threads(tmp_path: Path, contract: FaceContract) -> None:
    torch.manual_seed(0)
    _, student = student_of(randomize(SmallFaceNet()), contract)
    delivered(student, tmp_path)
    one, two = (
        Embedder.open(tmp_path / "model.tflite", threads=n).embed(FACES, batch_size=n)
        for n in (1, 2)
    )
    assert (one == two).all()
