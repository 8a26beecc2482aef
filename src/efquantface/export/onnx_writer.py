"""Writes a canonical graph as ONNX: a student in integers (QDQ form), or a float network.

The file keeps the teacher's input and output names and its pixel range. Integer weights and biases
are initializers; a value that an integer kernel reads is a QuantizeLinear directly on the producer's
output and a DequantizeLinear in front of each reader, which the runtimes fuse into integer kernels.
Pooling, flattening, padding and ``min(x, 0)`` work on the codes themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from torch import Tensor, fx, nn

from efquantface.contract import METADATA_KEY
from efquantface.errors import ExportError
from efquantface.export.input_forms import INPUT_FORMS
from efquantface.export.islands import ISLAND_EMITTERS, quantized_rows_linear, rows_linear
from efquantface.export.packing import PACKED_IR_VERSION, PACKED_OPSET, stored_bits
from efquantface.export.values import OnnxBuilder, Value
from efquantface.files import whole
from efquantface.graph.graph import INPUT, module_nodes, name_of, output_name, pool_attrs, shapes
from efquantface.graph.model import FaceModel
from efquantface.graph.ops import (
    Add,
    Affine,
    Clamp,
    Flatten,
    GlobalAvgPool,
    Multiply,
    PReLU,
    ZeroPad,
)
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

OPSET = 17
IR_VERSION = 8


def write_onnx(
    model: FaceModel,
    path: Path,
    metadata: dict[str, str] | None = None,
    *,
    packed: bool = True,
) -> None:
    """Write ``model`` (quantized or float) to ``path``; it appears whole or not at all.

    ``packed`` stores weights of up to 6 bits in few bits (:mod:`packing`), which needs opset 21.
    """
    proto = to_onnx(model, metadata, packed=packed)
    try:
        with whole(path) as temporary:
            onnx.save(proto, str(temporary))
    except OSError as error:
        raise ExportError(f"{path}: could not be written ({error})") from None


def to_onnx(
    model: FaceModel, metadata: dict[str, str] | None = None, *, packed: bool = True
) -> onnx.ModelProto:
    """The ONNX form of a model, with dynamic batch and fixed height and width.

    Raises:
        ExportError: the graph holds an operator that has no ONNX form here.
    """
    return _Writer(model, packed).write(metadata or {})


class _Writer:
    def __init__(self, model: FaceModel, packed: bool) -> None:
        self.model, self.contract = model, model.contract
        self.packed = packed and any(
            stored_bits(m.bits) < 8
            for m in model.graph.modules()
            if isinstance(m, QuantConv2d | QuantLinear)
        )
        self.opset = PACKED_OPSET if self.packed else OPSET
        self.out = OnnxBuilder(packed=self.packed, opset=self.opset)
        self.shapes = shapes(model.graph, self.contract.height, self.contract.width)
        self.out.taken |= {self.contract.input_name, self.contract.output_name}
        self.values: dict[str, Value] = {}

    def write(self, metadata: dict[str, str]) -> onnx.ModelProto:
        contract = self.contract
        self.values[INPUT] = Value(contract.input_name)
        for node, module in module_nodes(self.model.graph):
            inputs = [self.values[name_of(a)] for a in node.args if isinstance(a, fx.Node)]
            self.values[name_of(node)] = self.emit(str(node.target), module, inputs)
        result = self.values[output_name(self.model.graph)]
        self._name_output(self.out.dequantize(result))
        self._name_for_loaders()
        self.out.unpack_first()
        graph = helper.make_graph(
            self.out.nodes,
            "efquantface",
            [_tensor_info(contract.input_name, ["batch", 3, contract.height, contract.width])],
            [_tensor_info(contract.output_name, ["batch", contract.embedding_size])],
            self.out.initializers,
        )
        proto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], producer_name="efquantface"
        )
        proto.ir_version = PACKED_IR_VERSION if self.packed else IR_VERSION
        stored = {METADATA_KEY: contract.to_json(), **metadata}
        if contract.licence:
            stored["teacher_licence"] = contract.licence
        helper.set_model_props(proto, stored)
        onnx.checker.check_model(proto)
        return proto

    def emit(self, name: str, module: nn.Module, inputs: list[Value]) -> Value:
        """The ONNX form of one operator; the name of a node of ours is its module's."""
        if isinstance(module, nn.Linear | QuantLinear) and len(self.shapes[name]) > 2:
            form: Any = rows_linear if isinstance(module, nn.Linear) else quantized_rows_linear
            result: Value = form(self.out, name, module, inputs)
            return result
        if type(module) in INPUT_FORMS:
            write = INPUT_FORMS[type(module)]
            return write(self.out, self.contract, name, module, inputs[0].name)
        if type(module) in ISLAND_EMITTERS:
            return ISLAND_EMITTERS[type(module)](self.out, name, module, inputs)
        emit = _EMITTERS.get(type(module))
        if emit is None:
            raise ExportError(f"{name}: {type(module).__name__} has no ONNX form")
        return emit(self, name, module, inputs)

    def _name_output(self, result: str) -> None:
        for node in self.out.nodes:
            for index, name in enumerate(node.output):
                if name == result:
                    node.output[index] = self.contract.output_name
                    return
        raise ExportError("the graph has no operator that gives the embedding")

    def _name_for_loaders(self) -> None:
        """InsightFace's loader feeds raw pixels to files whose first nodes are named Sub and Mul."""
        if self.contract.is_raw_pixels:
            for node, prefix in zip(self.out.nodes, ("Sub_", "Mul_"), strict=False):
                node.name = prefix + node.name.replace("/", "_")


def _tensor_info(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _quantizer(w: _Writer, name: str, m: ActivationQuantizer, inputs: list[Value]) -> Value:
    step, zero = m.qparams()
    return w.out.quantize(inputs[0].name, name, step, zero, (m.lowest, m.highest, m.symmetric))


def _quant_conv(w: _Writer, name: str, m: QuantConv2d, inputs: list[Value]) -> Value:
    return Value(w.out.node("Conv", _operands(w, name, inputs[0], m), name, **_conv_attrs(m)))


def _quant_linear(w: _Writer, name: str, m: QuantLinear, inputs: list[Value]) -> Value:
    return Value(w.out.node("Gemm", _operands(w, name, inputs[0], m), name, transB=1))


def _operands(
    w: _Writer, name: str, source: Value, m: QuantConv2d | QuantLinear | QuantAffine
) -> tuple[str, ...]:
    """Dequantized input, weight and bias of an integer layer."""
    assert source.step is not None, f"{name} reads a float tensor"
    codes, steps = (_array(t) for t in m.weight_codes())
    weight, scale = w.out.weight(codes, steps, m.bits)
    operands = (w.out.dequantize(source), weight)
    bias = _array(m.bias)
    if not bias.any() and isinstance(m, QuantAffine):  # a PReLU's slopes
        return operands
    return (*operands, w.out.bias(bias, source, (scale, steps), name))


def _affine(w: _Writer, name: str, m: Affine, inputs: list[Value]) -> Value:
    shaped = (1, -1, 1, 1)
    factor = w.out.constant(_array(m.weight).reshape(shaped), np.float32)
    offset = w.out.constant(_array(m.bias).reshape(shaped), np.float32)
    scaled = w.out.node("Mul", (inputs[0].name, factor), f"{name}_factor")
    return Value(w.out.node("Add", (scaled, offset), f"{name}_offset"))


def _quant_affine(w: _Writer, name: str, m: QuantAffine, inputs: list[Value]) -> Value:
    """A per-channel affine of codes is a depthwise 1x1 convolution."""
    operands = _operands(w, name, inputs[0], m)
    return Value(w.out.node("Conv", operands, name, group=m.channels))


def _add(w: _Writer, name: str, m: Add, inputs: list[Value]) -> Value:
    operands = [w.out.dequantize(v) for v in inputs]
    return Value(w.out.node("Add", operands, name))


def _multiply(w: _Writer, name: str, m: Multiply, inputs: list[Value]) -> Value:
    operands = [w.out.dequantize(v) for v in inputs]
    return Value(w.out.node("Mul", operands, name))


def _sigmoid(w: _Writer, name: str, m: nn.Sigmoid, inputs: list[Value]) -> Value:
    return Value(w.out.node("Sigmoid", (w.out.dequantize(inputs[0]),), name))


def _clamp(w: _Writer, name: str, m: Clamp, inputs: list[Value]) -> Value:
    value = inputs[0]
    if value.is_codes and m.low is None and m.high == 0:
        return w.out.clip(value, value.lowest, value.zero_point, name)
    if value.is_codes and m.low == 0 and m.high is None:
        return w.out.clip(value, value.zero_point, value.highest, name)
    source = w.out.dequantize(value)
    if m.low == 0 and m.high is None:
        return Value(w.out.node("Relu", (source,), name))
    low = "" if m.low is None else w.out.constant(m.low, np.float32)
    high = "" if m.high is None else w.out.constant(m.high, np.float32)
    return Value(w.out.node("Clip", (source, low, high), name))


def _pad(w: _Writer, name: str, m: ZeroPad, inputs: list[Value]) -> Value:
    pads = [0, 0, m.top, m.left, 0, m.channels, m.bottom, m.right]
    value = inputs[0]
    amounts = w.out.constant(pads, np.int64)
    fill = w.out.constant(value.zero_point, value.dtype if value.is_codes else np.float32)
    return value.renamed(w.out.node("Pad", (value.name, amounts, fill), name))


def _max_pool(w: _Writer, name: str, m: nn.MaxPool2d, inputs: list[Value]) -> Value:
    return inputs[0].renamed(w.out.node("MaxPool", (inputs[0].name,), name, **_pool_attrs(m)))


def _avg_pool(w: _Writer, name: str, m: nn.AvgPool2d, inputs: list[Value]) -> Value:
    source = w.out.dequantize(inputs[0])
    attrs = {**_pool_attrs(m), "count_include_pad": int(m.count_include_pad)}
    return Value(w.out.node("AveragePool", (source,), name, **attrs))


def _global_pool(w: _Writer, name: str, m: GlobalAvgPool, inputs: list[Value]) -> Value:
    source = w.out.dequantize(inputs[0])
    return Value(w.out.node("GlobalAveragePool", (source,), name))


def _flatten(w: _Writer, name: str, m: Flatten, inputs: list[Value]) -> Value:
    return inputs[0].renamed(w.out.node("Flatten", (inputs[0].name,), name, axis=1))


def _conv(w: _Writer, name: str, m: nn.Conv2d, inputs: list[Value]) -> Value:
    assert m.bias is not None
    weight = w.out.constant(_array(m.weight), np.float32)
    bias = w.out.constant(_array(m.bias), np.float32)
    return Value(w.out.node("Conv", (inputs[0].name, weight, bias), name, **_conv_attrs(m)))


def _linear(w: _Writer, name: str, m: nn.Linear, inputs: list[Value]) -> Value:
    weight = w.out.constant(_array(m.weight), np.float32)
    bias = w.out.constant(_array(m.bias), np.float32)
    return Value(w.out.node("Gemm", (inputs[0].name, weight, bias), name, transB=1))


def _prelu(w: _Writer, name: str, m: PReLU, inputs: list[Value]) -> Value:
    """``a x + (1 - a) relu(x)``: what ONNX Runtime runs several times faster than its PRelu."""
    slope = _array(m.slope).reshape(-1, 1, 1)
    if w.model.quantized:  # placed for OpenVINO, which fuses it into the convolution
        constant = w.out.constant(slope, np.float32)
        return Value(w.out.node("PRelu", (inputs[0].name, constant), name))
    factor = w.out.constant(slope, np.float32)
    rest = w.out.constant(1 - slope, np.float32)
    positive = w.out.node("Relu", (inputs[0].name,), name)
    linear = w.out.node("Mul", (inputs[0].name, factor), f"{name}_linear")
    bent = w.out.node("Mul", (positive, rest), f"{name}_bent")
    return Value(w.out.node("Add", (linear, bent), name))


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    return np.asarray(tensor.detach().cpu().numpy())


def _conv_attrs(m: QuantConv2d | nn.Conv2d) -> dict[str, Any]:
    """Attributes that differ from ONNX's defaults."""
    padding = [int(p) for p in m.padding]
    attrs: dict[str, Any] = {
        "strides": list(m.stride),
        "pads": padding + padding,
        "dilations": list(m.dilation),
        "group": m.groups,
    }
    defaults = {"strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1}
    return {key: value for key, value in attrs.items() if value != defaults[key]}


def _pool_attrs(m: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    attrs = pool_attrs(m)
    return {
        "kernel_shape": attrs["kernel_size"],
        "strides": attrs["stride"],
        "pads": attrs["padding"] * 2,
        "ceil_mode": int(attrs["ceil_mode"]),
    }


_EMITTERS: dict[type[nn.Module], Callable[[_Writer, str, Any, list[Value]], Value]] = {
    ActivationQuantizer: _quantizer,
    QuantConv2d: _quant_conv,
    QuantLinear: _quant_linear,
    Affine: _affine,
    QuantAffine: _quant_affine,
    Add: _add,
    Multiply: _multiply,
    nn.Sigmoid: _sigmoid,
    Clamp: _clamp,
    ZeroPad: _pad,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    GlobalAvgPool: _global_pool,
    Flatten: _flatten,
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    PReLU: _prelu,
}


def insightface_loader_normalization(node_names: tuple[str, ...]) -> tuple[float, float]:
    """(mean, std) that InsightFace's Python loader chooses from the names of the first 8 nodes."""
    first = node_names[:8]
    subtracts = any(n.startswith(("Sub", "_minus")) for n in first)
    multiplies = any(n.startswith(("Mul", "_mul")) for n in first)
    return (0.0, 1.0) if subtracts and multiplies else (127.5, 127.5)
