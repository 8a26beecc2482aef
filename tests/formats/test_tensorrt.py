"""TensorRT's form computes the student, keeps the parser's rules, and refuses what it cannot carry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from conftest import SIZE, SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.errors import ExportError, ParityError
from efquantface.export.onnx_writer import named_onnx, to_onnx
from efquantface.formats import tensorrt as room
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.formats.tensorrt_forms import FORMS
from efquantface.formats.tensorrt_rules import broken_rules
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes
from efquantface.graph.model import FaceModel
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from faults import Fault, File, less, put
from planting import CONTRACT, DEPTHWISE, EXPAND, FC, SLOPES, attribute, no_input, q, step
from students import Pattern, student_of

TENSORRT = FORMATS["tensorrt"]


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool, self.up = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.up(self.pool(x)))


class Tokens(nn.Module):
    """A transformer's parts: LayerNorm, a linear layer over tokens, GELU, products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.a, self.b = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(2).transpose(1, 2)
        mixed = self.b(nn.functional.gelu(self.a(self.norm(rows))))
        again = torch.softmax(mixed @ mixed.transpose(1, 2), dim=-1) @ mixed
        return (rows + again).transpose(1, 2).reshape(x.shape)


NETWORKS = {
    "small": SmallFaceNet,
    "squeeze": lambda: Pattern(Squeeze()),
    "tokens": lambda: Pattern(Tokens()),
    "pre-batchnorm": lambda: Pattern(
        nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1))
    ),
    "zero pad": lambda: Pattern(ops.ZeroPad(4, bottom=1, right=1), channels=12),
}


@pytest.mark.parametrize("bits", ["w8a8", "w4a4"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_form_computes_the_student(
    name: str, bits: str, tmp_path: Path, contract: FaceContract
) -> None:
    _, student = student_of(randomize(NETWORKS[name]()), contract, bits, symmetric=True)
    target = tmp_path / "student.tensorrt.onnx"
    lines = deliver(student, TENSORRT, target)
    assert "not run on a GPU" in "\n".join(lines)
    assert any("in 8 bits" in line for line in lines) == (bits == "w4a4")
    faces = make_faces(seed=3).images[:8]
    found = room.open(target, 1)(contract.normalize(faces))
    own = student.embed_pixels(torch.from_numpy(contract.pixels(faces))).numpy()
    cosine = (found * own).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(own, axis=1)
    assert cosine.mean() > (0.9995 if bits == "w8a8" else 0.98)
    codes = {i.data_type for i in onnx.load(str(target)).graph.initializer}
    assert onnx.TensorProto.INT4 not in codes


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.0,) * 3, (1.0,) * 3), ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))],
)
def test_the_input_has_one_scale(
    tmp_path: Path, network: nn.Module, mean: object, std: object
) -> None:
    contract = FaceContract(SIZE, SIZE, 16, template="unknown", mean=mean, std=std)  # type: ignore[arg-type]
    _, student = student_of(network, contract, symmetric=True)
    deliver(student, TENSORRT, tmp_path / "s.onnx")
    graph = onnx.load(str(tmp_path / "s.onnx")).graph
    first = next(n for n in graph.node if n.op_type == "QuantizeLinear")
    (reader,) = (n for n in graph.node if first.output[0] in n.input)
    assert list(reader.input[1:]) == list(first.input[1:])


@pytest.fixture(scope="module")
def student() -> FaceModel:
    torch.manual_seed(0)
    return student_of(randomize(SmallFaceNet()), CONTRACT, symmetric=True)[1]


def test_the_file_holds_the_students_integers(student: FaceModel) -> None:
    file = File(named_onnx(student, packed=False, emitters=FORMS)[0])
    for node, layer in module_nodes(student.graph):
        if isinstance(layer, QuantConv2d | QuantLinear):
            op = "conv" if isinstance(layer, QuantConv2d) else "gemm"
            weight = file.operand(f"{op}/{node.target}", 1)
            codes, scales = (t.detach().numpy() for t in layer.weight_codes())
            np.testing.assert_array_equal(file.value(weight.input[0]), codes)
            np.testing.assert_array_equal(file.value(weight.input[1]), scales)


def test_what_is_refused_says_the_way_out(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    teacher, affine = student_of(network, contract)
    with pytest.raises(ExportError, match="--activations symmetric"):
        deliver(affine, TENSORRT, tmp_path / "s.onnx")
    with pytest.raises(ExportError, match="float network"):
        deliver(teacher, TENSORRT, tmp_path / "s.onnx")
    assert not list(tmp_path.iterdir())


def test_the_plain_file_of_a_symmetric_student_breaks_the_rules(student: FaceModel) -> None:
    """Symmetric activations alone are not what the parser takes."""
    said = "; ".join(broken_rules(to_onnx(student)))
    for part in (
        "a DequantizeLinear of INT32 constants",
        "a scale or zero point that is no initializer",
        "a Clip of codes",
        "a Flatten of codes",
        "a Mul of constants alone",
    ):
        assert part in said


def inner(layer: str, change: object) -> Fault:
    """Change what a layer reads as its factor or bias."""
    return lambda m: m.change(m.node(layer).input[1], change)  # type: ignore[arg-type]


COMPUTED: dict[str, Fault] = {
    "one weight by one code": lambda m: m.weight(EXPAND, put((7, 3, 0, 0), less)),
    "one embedding weight by one code": lambda m: m.weight(FC, put((3, 5), less)),
    "step by a thousandth": step("add", 1.001),
    "embedding scales": lambda m: m.weight_scale(FC, lambda v: v * 1.0009),
    "bias gone": no_input(DEPTHWISE, 2),
    "one bias": lambda m: m.change(m.node(EXPAND).input[2], put(3, lambda v: v + 0.05)),
    "one slope": inner(SLOPES.replace("conv", "mul"), put((0, 4, 0, 0), lambda v: v * 0.9)),
    "contract": lambda m: m.contract(mean=[127.0] * 3),
    "padding aside": attribute(DEPTHWISE, "pads", [2, 2, 0, 0]),
    "relu gone": lambda m: m.node(q("add")).input.__setitem__(
        0, m.maker(m.node(q("add")).input[0]).input[0]
    ),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_fault_is_caught(name: str, student: FaceModel, tmp_path: Path) -> None:
    path = tmp_path / "s.onnx"
    deliver(student, TENSORRT, path)
    changed = File(onnx.load(str(path)))
    COMPUTED[name](changed)
    path.write_bytes(changed.bytes())
    with pytest.raises(ParityError, match=r"s\.onnx"):
        room.check(student, [path])


def test_scales_are_exact_floats(student: FaceModel) -> None:
    graph = named_onnx(student, packed=False, emitters=FORMS)[0].graph
    stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        assert stored[node.input[1]].dtype == np.float32
        assert stored[node.input[2]].dtype == np.int8
        assert not stored[node.input[2]].any()
