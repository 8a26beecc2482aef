"""From a file's input, in its contract's terms, to the first value of the graph: pixels or codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from efquantface.contract import FaceContract
from efquantface.export.values import OnnxBuilder, Value
from efquantface.graph.ops import Normalize
from efquantface.quantize.fake_quant import InputQuantizer


def _normalize(
    out: OnnxBuilder, contract: FaceContract, name: str, m: Normalize, source: str
) -> Value:
    return Value(_renormalized(out, contract, name, m, source))


def _input_quantizer(
    out: OnnxBuilder, contract: FaceContract, name: str, m: InputQuantizer, source: str
) -> Value:
    step, zero = m.qparams()
    codes = (-128, 127, True) if m.symmetric else (0, 255, False)
    if not m.pixels:
        source = _renormalized(out, contract, name, m, source)
        return out.quantize(source, name, step, zero, codes)
    # codes are the pixels: shift (and, with unequal std, scale) the input back to them
    std = np.asarray(contract.std)
    offset = np.asarray(contract.mean) - (m.zero_value if m.symmetric else 0)
    if (std == std[0]).all():
        source = _affine(out, source, np.ones(3), offset / std, name)
        pixels = out.quantize(source, name, 1 / float(std[0]), 0, codes)
    else:
        source = _affine(out, source, std, offset, name)
        pixels = out.quantize(source, name, 1.0, 0, codes)
    return Value(pixels.name, step, zero, *codes)


def _renormalized(
    out: OnnxBuilder,
    contract: FaceContract,
    name: str,
    m: Normalize | InputQuantizer,
    source: str,
) -> str:
    """From ``(p - mean) / std`` of the contract to the graph's own."""
    mean, std = np.asarray(m.mean.cpu()), np.asarray(m.std.cpu())
    weight = np.asarray(contract.std) / std
    bias = (np.asarray(contract.mean) - mean) / std
    return _affine(out, source, weight, bias, name)


def _affine(out: OnnxBuilder, source: str, weight: Any, bias: Any, name: str) -> str:
    """``source * weight + bias`` per channel, leaving out what does nothing."""
    weight, bias = (np.asarray(v, np.float64).reshape(1, 3, 1, 1) for v in (weight, bias))
    if not np.allclose(weight, 1, rtol=1e-6, atol=0):
        source = out.node("Mul", (source, out.constant(weight, np.float32)), f"{name}_factor")
    if not np.allclose(bias, 0, rtol=0, atol=1e-7):
        source = out.node("Add", (source, out.constant(bias, np.float32)), f"{name}_offset")
    return source


INPUT_FORMS: dict[type[nn.Module], Callable[[OnnxBuilder, FaceContract, str, Any, str], Value]] = {
    Normalize: _normalize,
    InputQuantizer: _input_quantizer,
}
