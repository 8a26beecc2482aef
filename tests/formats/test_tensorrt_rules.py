"""Each rule that TensorRT's parser asks for is noticed where it is broken, and named with its node."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper

from conftest import SmallFaceNet, randomize
from efquantface.export.onnx_writer import named_onnx
from efquantface.formats.tensorrt_forms import FORMS
from efquantface.formats.tensorrt_rules import broken_rules
from faults import Fault, File
from planting import CONTRACT, EXPAND, FC, q
from students import student_of


@pytest.fixture(scope="module")
def good() -> ModelProto:
    torch.manual_seed(0)
    _, student = student_of(randomize(SmallFaceNet()), CONTRACT, "w6a6", symmetric=True)
    return named_onnx(student, packed=False, emitters=FORMS)[0]


def test_the_form_keeps_the_rules(good: ModelProto) -> None:
    assert broken_rules(good) == []


def own(node: str, index: int, value: object) -> Fault:
    """Give a quantizer a constant of its own."""
    return lambda m: m.node(node).input.__setitem__(index, m.add("own", value))


def weight(index: int, value: object) -> Fault:
    return lambda m: m.operand(EXPAND, 1).input.__setitem__(index, m.add("own", value))


def between(op: str, **attrs: object) -> Fault:
    """An operator on a quantizer's codes, in front of what dequantizes them."""

    def fault(m: File) -> None:
        codes = m.node(q("add")).output[0]
        (reader,) = m.readers(codes)
        m.graph.node.append(helper.make_node(op, [codes], ["moved"], "moves", **attrs))
        reader.input[0] = "moved"

    return fault


def computed_scale(m: File) -> None:
    node = m.node(q("add"))
    m.graph.node.append(
        helper.make_node("Mul", [node.input[1], m.add("one", np.float32(1))], ["made"], "made")
    )
    node.input[1] = "made"


def integer_bias(m: File) -> None:
    node = m.node(EXPAND)
    codes = m.add("codes", np.zeros(32, np.int32))
    scales, zeros = m.add("steps", np.ones(32, np.float32)), m.add("zero", np.zeros(32, np.int8))
    m.graph.node.append(helper.make_node("DequantizeLinear", [codes, scales, zeros], ["b"], axis=0))
    node.input[2] = "b"


def moved_input(m: File) -> None:
    """An operator between a DequantizeLinear and the layer that reads it."""
    node = m.node(EXPAND)
    m.graph.node.append(helper.make_node("Relu", [node.input[0]], ["late"], "late"))
    node.input[0] = "late"


def float_weight(m: File) -> None:
    m.node(EXPAND).input[1] = m.operand(EXPAND, 1).input[0]


def axis(layer: str, value: int) -> Fault:
    def fault(m: File) -> None:
        next(a for a in m.operand(layer, 1).attribute if a.name == "axis").i = value

    return fault


def opset(domain: str, version: int) -> Fault:
    def fault(m: File) -> None:
        del m.model.opset_import[:]
        m.model.opset_import.append(helper.make_opsetid(domain, version))

    return fault


def leaves(m: File) -> None:
    codes = m.node(q("add")).output[0]
    m.graph.output.append(helper.make_tensor_value_info(codes, onnx.TensorProto.INT8, None))


BROKEN: dict[str, tuple[Fault, str]] = {
    "zero point": (own(q("add"), 2, np.int8(3)), "a zero point that is not int8 zero"),
    "unsigned": (own(q("add"), 2, np.uint8(0)), "a zero point that is not int8 zero"),
    "no zero point": (lambda m: m.node(q("add")).input.pop(), "no initializer"),
    "computed scale": (computed_scale, "a scale or zero point that is no initializer"),
    "two scales": (own(q("add"), 1, np.float32(0.5)), "dequantized with another scale"),
    "negative scale": (own(q("add"), 1, np.float32(-0.5)), "a scale that is not above zero"),
    "half a scale": (own(q("add"), 1, np.float16(0.5)), "a scale that is not float32"),
    "scale a channel": (
        own(q("add"), 1, np.full(16, 0.5, np.float32)),
        "activations with a scale a channel",
    ),
    "clip of codes": (between("Clip"), "a Clip of codes"),
    "flatten of codes": (between("Flatten"), "a Flatten of codes"),
    "pooled codes": (between("MaxPool", kernel_shape=[2, 2]), "a MaxPool of codes"),
    "codes leave": (leaves, "codes that leave the file"),
    "int32 bias": (integer_bias, "a DequantizeLinear of INT32 constants"),
    "moved input": (moved_input, "a Conv whose input is not dequantized right in front of it"),
    "stored codes": (float_weight, "a Conv of stored codes"),
    "axis": (axis(EXPAND, 1), "a weight without a scale for each of its 32 outputs, along axis 0"),
    "axis of the embedding": (axis(FC, 1), "for each of its 16 outputs"),
    "one weight scale": (weight(1, np.float32(0.1)), "32 zero points beside 1 scales"),
    "unsigned weight": (
        weight(0, np.zeros((32, 16, 1, 1), np.uint8)),
        "a DequantizeLinear of UINT8 constants",
    ),
    "opset": (opset("", 21), "not of ONNX opset 13 to 17"),
    "domain": (opset("com.microsoft", 1), "not of ONNX opset"),
    "operator": (
        lambda m: setattr(m.node(EXPAND), "op_type", "QLinearConv"),
        "1 QLinearConv, which TensorRT's parser does not import",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rule_is_named(name: str, good: ModelProto) -> None:
    fault, said = BROKEN[name]
    file = File(good)
    fault(file)
    found = "; ".join(broken_rules(file.model))
    assert said in found, found
