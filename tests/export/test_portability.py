"""Files whose sums of two products can exceed 16 bits are found, against trying all pairs of inputs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from conftest import randomize
from efquantface.contract import FaceContract
from efquantface.export.onnx_writer import to_onnx
from efquantface.export.portability import PORTABLE_KEY, overflowing, wrong_without_vnni
from students import student_of

OUTPUTS, INPUTS = 3, 4
DTYPES = {"u8": np.uint8, "s8": np.int8}


def can_overflow(weight: np.ndarray, codes: range) -> bool:
    """Whether any two inputs, at the ends of their codes, give a sum that is no int16."""
    ends = (codes[0], codes[-1])
    return any(
        not -32768 <= x * int(row[i]) + y * int(row[j]) <= 32767
        for row in weight
        for i, j in combinations(range(weight.shape[1]), 2)
        for x, y in product(ends, ends)
    )


class Made:
    """A file with one layer on the codes ``x``, whose weight (O,K) each form lays out its own way."""

    def __init__(self, weight: np.ndarray, codes: str = "u8", high: int | None = None) -> None:
        self.weight, self.codes = weight, codes
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {
            "step": np.float32(0.1),
            "zero": DTYPES[codes](0),
            "w_step": np.float32(0.1),
            "w_zero": np.int8(0),
        }
        self.node("QuantizeLinear", ["source", "step", "zero"], "x")
        self.x = "x"
        if high is not None:
            self.constants |= {"low": DTYPES[codes](0), "high": DTYPES[codes](high)}
            self.node("Clip", ["x", "low", "high"], "clipped")
            self.node("Flatten", ["clipped"], "moved")
            self.x = "moved"

    def node(self, op: str, inputs: list[str], output: str, **attrs: int) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{op}/{output}", **attrs))

    def constant(self, value: np.ndarray) -> str:
        self.constants["w"] = np.ascontiguousarray(value)
        return "w"

    def floats(self, weight: np.ndarray) -> list[str]:
        """The dequantized codes and weight."""
        self.node("DequantizeLinear", [self.x, "step", "zero"], "fx")
        self.node("DequantizeLinear", [self.constant(weight), "w_step", "w_zero"], "fw")
        return ["fx", "fw"]

    def found(self) -> bool:
        values = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("source", "y")
        ]
        constants = [numpy_helper.from_array(np.asarray(v), k) for k, v in self.constants.items()]
        graph = helper.make_graph(self.nodes, "made", values[:1], values[1:], constants)
        named = overflowing(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
        assert named in ([], [self.nodes[-1].name])
        return bool(named)


def qdq_conv(m: Made) -> None:
    m.node("Conv", m.floats(m.weight.reshape(OUTPUTS, 1, 2, 2)), "y")


def gemm(m: Made) -> None:
    m.node("Gemm", m.floats(m.weight.T), "y")


def gemm_transposed(m: Made) -> None:
    m.node("Gemm", m.floats(m.weight), "y", transB=1)


def matmul(m: Made) -> None:
    m.node("MatMul", m.floats(m.weight.T), "y")


def qlinear_conv(m: Made) -> None:
    weight = m.constant(m.weight.reshape(OUTPUTS, 2, 2, 1))
    m.node("QLinearConv", [m.x, "step", "zero", weight, "w_step", "w_zero", "step", "zero"], "y")


def matmul_integer(m: Made) -> None:
    m.node("MatMulInteger", [m.x, m.constant(m.weight.T), "zero", "w_zero"], "y")


def computed_weight(m: Made) -> None:
    """Weights that a file computes from constants, as packed ones are."""
    stored = m.constant((m.weight.astype(np.int32) + 128).astype(np.int32))
    m.constants["offset"] = np.int32(128)
    m.node("Sub", [stored, "offset"], "shifted")
    m.node("Cast", ["shifted"], "int8", to=TensorProto.INT8)
    m.node("DequantizeLinear", [m.x, "step", "zero"], "fx")
    m.node("DequantizeLinear", ["int8", "w_step", "w_zero"], "fw")
    m.node("Gemm", ["fx", "fw"], "y", transB=1)


FORMS: list[Callable[[Made], None]] = [
    *(qdq_conv, gemm, gemm_transposed, matmul, qlinear_conv, matmul_integer, computed_weight)
]


def weights() -> list[np.ndarray]:
    """Random ones, of which about half can overflow, and those just at the limit."""
    rng = np.random.default_rng(0)
    made = [rng.integers(-m, m + 1, (OUTPUTS, INPUTS)) for m in rng.integers(50, 100, 30)]
    for first, second in ((64, 64), (65, 64), (127, 1), (127, 2), (-64, -64), (-65, -64)):
        one = np.zeros((OUTPUTS, INPUTS), int)
        one[1, [0, 3]] = first, second
        made.append(one)
        apart = np.zeros((OUTPUTS, INPUTS), int)  # of two outputs, or of two signs
        apart[0, 0], apart[1, 0], apart[2, :2] = first, second, (first, -second)
        made.append(apart)
    made.append(np.full((OUTPUTS, INPUTS), -128))
    return [w.astype(np.int8) for w in made]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("codes", "high", "used"),
    [("u8", None, range(256)), ("u8", 200, range(201)), ("s8", None, range(-128, 128))],
    ids=["unsigned", "clipped", "signed"],
)
def test_what_can_overflow_is_found(
    form: Callable[[Made], None], codes: str, high: int | None, used: range
) -> None:
    seen = set()
    for weight in weights():
        made = Made(weight, codes, high)
        form(made)
        assert made.found() is can_overflow(weight, used), weight
        seen.add(can_overflow(weight, used))
    assert seen == {True, False}


def test_unsigned_weights_are_another_kernels() -> None:
    """u8 x u8 kernels widen before they add."""
    made = Made(np.full((OUTPUTS, INPUTS), 100, np.int8))
    made.constants["w_zero"] = np.uint8(128)
    made.node("DequantizeLinear", ["x", "step", "zero"], "fx")
    weight = made.constant(np.full((OUTPUTS, INPUTS), 228, np.uint8))
    made.node("DequantizeLinear", [weight, "w_step", "w_zero"], "fw")
    made.node("Gemm", ["fx", "fw"], "y", transB=1)
    assert not made.found()


def test_float_layers_do_not_count() -> None:
    made = Made(np.full((OUTPUTS, INPUTS), 100, np.int8))
    made.node("Gemm", ["source", made.constant(np.ones((INPUTS, OUTPUTS), np.float32))], "y")
    assert not made.found()


@pytest.mark.parametrize("bits", ["w8a8", "w7a8", "w6a8", "w4a8", "w8a4"])
@pytest.mark.parametrize("full_range", [True, False])
def test_students_say_whether_they_are_portable(
    network: nn.Module, contract: FaceContract, bits: str, full_range: bool
) -> None:
    _, student = student_of(randomize(network), contract, bits, full_range=full_range)
    file = to_onnx(student)
    stated = {p.key: p.value for p in file.metadata_props}[PORTABLE_KEY]
    layers = overflowing(file)
    assert stated == ("no" if layers else "yes")
    assert bool(layers) == (full_range and bits in ("w8a8", "w8a4"))


def test_the_sentence_counts_layers() -> None:
    assert "in 1 layer," in wrong_without_vnni(["a"])
    assert "in 2 layers," in wrong_without_vnni(["a", "b"])


def test_nothing_is_found_in_a_file_without_operators() -> None:
    graph = helper.make_graph([], "empty", [], [])
    assert overflowing(helper.make_model(graph)) == []
    assert overflowing(onnx.ModelProto()) == []
