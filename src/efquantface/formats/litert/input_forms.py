"""From a file's input, normalized as its contract says, to the graph's first value: floats or codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from efquantface.formats.litert.values import Codes, Value
from efquantface.formats.litert.writer import Writer
from efquantface.graph import ops
from efquantface.quantize.fake_quant import InputQuantizer


def normalize(out: Writer, name: str, m: ops.Normalize, inputs: list[Value]) -> Value:
    """From the contract's normalization to the graph's; nothing where they are equal."""
    return _renormalized(out, m, inputs[0])


def input_quantizer(out: Writer, name: str, m: InputQuantizer, inputs: list[Value]) -> Value:
    """The codes of the file's input: the pixels themselves, or codes of the normalized input."""
    scale, zero_point = m.qparams()
    offset = 0 if m.symmetric else -128
    codes = Codes(np.float32(scale), zero_point + offset, offset)
    if m.pixels:  # the values that their codes stand for
        std, mean = (np.asarray(v) for v in (out.contract.std, out.contract.mean))
        value = _affine(out, inputs[0], std * scale, (mean - m.zero_point_value) * scale)
    else:
        value = _renormalized(out, m, inputs[0])
    return out.named(out.moved(value, codes), name)


def _renormalized(out: Writer, m: ops.Normalize | InputQuantizer, source: Value) -> Value:
    """From ``(p - mean) / std`` with the contract's values to the same with the graph's."""
    mean, std = np.asarray(m.mean.cpu()), np.asarray(m.std.cpu())
    weight = np.asarray(out.contract.std) / std
    bias = (np.asarray(out.contract.mean) - mean) / std
    return _affine(out, source, weight, bias)


def _affine(out: Writer, source: Value, weight: Any, bias: Any) -> Value:
    """``source * weight + bias`` per channel, without a factor of 1 or an offset of 0."""
    weight, bias = (np.asarray(v, np.float64).reshape(3, 1, 1) for v in (weight, bias))
    if not np.allclose(weight, 1, rtol=1e-6, atol=0):
        source = out.float_op("MUL", (source.tensor, out.broadcast(weight, source)), source)
    if not np.allclose(bias, 0, rtol=0, atol=1e-7):
        source = out.float_op("ADD", (source.tensor, out.broadcast(bias, source)), source)
    return source
