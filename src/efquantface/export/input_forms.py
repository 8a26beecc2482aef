"""From a file's input, normalized as its contract says, to the graph's first value: floats or codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from efquantface.export.values import Value, Writer
from efquantface.graph import ops
from efquantface.quantize.fake_quant import InputQuantizer


def normalize(out: Writer, name: str, m: ops.Normalize, inputs: list[Value]) -> Value:
    """From the contract's normalization to the graph's; nothing where they are equal."""
    return Value(_renormalized(out, name, m, inputs[0].name))


def input_quantizer(out: Writer, name: str, m: InputQuantizer, inputs: list[Value]) -> Value:
    """The codes of the file's input: the pixels themselves, or codes of the normalized input."""
    source, contract = inputs[0].name, out.contract
    scale, zero_point = m.qparams()
    codes = (-128, 127, True) if m.symmetric else (0, 255, False)
    if not m.pixels:
        source = _renormalized(out, name, m, source)
        return out.quantize(source, name, scale, zero_point, codes)
    # codes are the pixels: shift the input back to them (and scale it where std differ)
    std = np.asarray(contract.std)
    offset = np.asarray(contract.mean) - (m.zero_point_value if m.symmetric else 0)
    if (std == std[0]).all():
        source = _affine(out, source, np.ones(3), offset / std, name)
        pixels = out.quantize(source, name, 1 / float(std[0]), 0, codes)
    else:
        source = _affine(out, source, std, offset, name)
        pixels = out.quantize(source, name, 1.0, 0, codes)
    return out.with_parameters(Value(pixels.name, scale, zero_point, *codes))


def _renormalized(out: Writer, name: str, m: ops.Normalize | InputQuantizer, source: str) -> str:
    """From ``(p - mean) / std`` with the contract's values to the same with the graph's."""
    mean, std = np.asarray(m.mean.cpu()), np.asarray(m.std.cpu())
    weight = np.asarray(out.contract.std) / std
    bias = (np.asarray(out.contract.mean) - mean) / std
    return _affine(out, source, weight, bias, name)


def _affine(out: Writer, source: str, weight: Any, bias: Any, name: str) -> str:
    """``source * weight + bias`` per channel, without a factor of 1 or an offset of 0."""
    weight, bias = (np.asarray(v, np.float64).reshape(1, 3, 1, 1) for v in (weight, bias))
    if not np.allclose(weight, 1, rtol=1e-6, atol=0):
        source = out.node("Mul", (source, out.constant(weight, np.float32)), f"{name}_factor")
    if not np.allclose(bias, 0, rtol=0, atol=1e-7):
        source = out.node("Add", (source, out.constant(bias, np.float32)), f"{name}_offset")
    return source
