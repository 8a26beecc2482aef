"""ONNX forms of a symmetric student's operators, as TensorRT's parser accepts them.

Only a QuantizeLinear writes codes, and only a DequantizeLinear of the same scale reads them. All else
reads and gives floats. Moves stand behind a DequantizeLinear. Where an integer layer reads a moved
value, a second pair of the same scale stands in front of the layer; it changes no code. The rules are in
:mod:`tensorrt_rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.export.attributes import conv_attributes
from efquantface.export.emitters import EMITTERS, Emitters
from efquantface.export.move_forms import clamp
from efquantface.export.values import Value, Writer, array
from efquantface.formats.symmetric import float_bias
from efquantface.graph import ops
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

LOW, HIGH = -128, 127  # where QuantizeLinear saturates


@dataclass(frozen=True)
class Stepped(Value):
    """A float tensor whose values are codes times a scale.

    Attributes:
        read: it is the output of a DequantizeLinear, which an integer layer may read.
    """

    read: bool = False

    @property
    def is_codes(self) -> bool:
        return False

    def renamed(self, name: str) -> Stepped:
        """The same values, moved, under another name."""
        return replace(self, name=name, read=False)


def _pair(out: Writer, source: str, name: str, like: Stepped) -> Stepped:
    """QuantizeLinear and DequantizeLinear with the scale of ``like``."""
    codes = out.node("QuantizeLinear", (source, *like.parameters), name)
    value = out.node("DequantizeLinear", (codes, *like.parameters), "")
    return replace(like, name=value, read=True)


def _rounded(out: Writer, source: str, name: str, scale: float) -> Stepped:
    like = out.with_parameters(Stepped("", scale, 0, LOW, HIGH, True))
    assert isinstance(like, Stepped)
    return _pair(out, source, name, like)


def _operand(out: Writer, value: Value, name: str) -> str:
    """What an integer layer reads: a DequantizeLinear's output."""
    assert isinstance(value, Stepped), f"{name} reads a float tensor"
    return value.name if value.read else _pair(out, value.name, "", value).name


def quantizer(out: Writer, name: str, m: ActivationQuantizer, inputs: list[Value]) -> Value:
    """A quantizer. Values beyond its codes are limited in float, in front of it."""
    scale, _ = m.qparams()
    source, low, high = inputs[0].name, m.qmin, m.qmax
    if (low, high) == (0, HIGH):
        source = out.node("Relu", (source,), "")
    elif (low, high) != (LOW, HIGH):
        step = np.float32(scale)
        limits = [out.constant(step * np.float32(code), np.float32) for code in (low, high)]
        source = out.node("Clip", (source, *limits), "")
    return _rounded(out, source, name, scale)


def input_quantizer(out: Writer, name: str, m: InputQuantizer, inputs: list[Value]) -> Value:
    """From the file's input to the normalization of the first layer, then to codes."""
    source, contract = inputs[0].name, out.contract
    mean, std = np.asarray(contract.mean), np.asarray(contract.std)
    scale, _ = m.qparams()
    if m.pixels:  # codes are pixels less the zero point
        factor, offset = std * scale, (mean - m.zero_point_value) * scale
    else:
        own_mean, own_std = (array(v).astype(np.float64) for v in (m.mean, m.std))
        factor, offset = std / own_std, (mean - own_mean) / own_std
    source = _scaled(out, source, name, factor.reshape(1, 3, 1, 1), offset.reshape(1, 3, 1, 1))
    return _rounded(out, source, name, scale)


def _scaled(
    out: Writer, source: str, name: str, factor: npt.NDArray[Any], offset: npt.NDArray[Any]
) -> str:
    """``source * factor + offset``, without a factor of 1 or an offset of 0."""
    if not np.allclose(factor, 1, rtol=1e-6, atol=0):
        source = out.node("Mul", (source, out.constant(factor, np.float32)), f"{name}_factor")
    if not np.allclose(offset, 0, rtol=0, atol=1e-7):
        source = out.node("Add", (source, out.constant(offset, np.float32)), f"{name}_offset")
    return source


def _weight(out: Writer, m: QuantConv2d | QuantLinear, axis: int = 0) -> str:
    """A weight's int8 codes, dequantized with one scale per output channel along ``axis``."""
    codes, scales = (array(t) for t in m.weight_codes())
    operands = (
        out.constant(np.moveaxis(codes, 0, axis), np.int8),
        out.constant(scales, np.float32),
        out.constant(np.zeros(len(scales)), np.int8),
    )
    return out.node("DequantizeLinear", operands, "", axis=axis)


def _bias(out: Writer, m: QuantConv2d | QuantLinear, source: Value) -> str:
    """The float values that the student's int32 bias stands for."""
    return out.constant(float_bias(m, source.scale or 0), np.float32)


def quant_conv(out: Writer, name: str, m: QuantConv2d, inputs: list[Value]) -> Value:
    """A convolution of dequantized codes and weights."""
    operands = (_operand(out, inputs[0], name), _weight(out, m), _bias(out, m, inputs[0]))
    return Value(out.node("Conv", operands, name, **conv_attributes(m)))


def quant_linear(out: Writer, name: str, m: QuantLinear, inputs: list[Value]) -> Value:
    """A linear layer. Over the last axis of a map it is a matrix product."""
    source = _operand(out, inputs[0], name)
    if out.ranks[name] <= 2:
        return Value(
            out.node("Gemm", (source, _weight(out, m), _bias(out, m, inputs[0])), name, transB=1)
        )
    product = out.node("MatMul", (source, _weight(out, m, axis=1)), name)
    bias = out.constant(array(m.bias), np.float32)  # the student adds it in float, too
    return Value(out.node("Add", (product, bias), f"{name}_offset"))


def quant_affine(out: Writer, name: str, m: QuantAffine, inputs: list[Value]) -> Value:
    """A per-channel affine, between DequantizeLinear and QuantizeLinear."""
    source = _operand(out, inputs[0], name)
    codes, scales = (array(t) for t in m.weight_codes())
    factor = codes * scales.reshape(-1, 1, 1, 1)
    offset = float_bias(m, inputs[0].scale or 0).reshape(1, -1, 1, 1)
    product = out.node("Mul", (source, out.constant(factor.reshape(1, -1, 1, 1), np.float32)), name)
    if not offset.any():  # a PReLU's slopes
        return Value(product)
    return Value(out.node("Add", (product, out.constant(offset, np.float32)), f"{name}_offset"))


def limit(out: Writer, name: str, m: ops.Clamp, inputs: list[Value]) -> Value:
    """A limit in float. Zero is a code, so a limit at zero gives values of codes."""
    source, made = inputs[0], clamp(out, name, m, inputs)
    if isinstance(source, Stepped) and {m.low, m.high} <= {None, 0.0}:
        return source.renamed(made.name)
    return made


FORMS: Emitters = {
    **EMITTERS,
    InputQuantizer: input_quantizer,
    ActivationQuantizer: quantizer,
    QuantConv2d: quant_conv,
    QuantLinear: quant_linear,
    QuantAffine: quant_affine,
    ops.Clamp: limit,
}
