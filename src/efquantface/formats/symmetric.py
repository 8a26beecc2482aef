"""Checks of a student for runtimes with signed integers and no zero points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.export.values import array
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear


def needs_symmetric(model: FaceModel, runtime: str) -> str | None:
    """Why a runtime without zero points cannot carry a model; None where it can."""
    if not model.quantized:
        return f"is a float network; {runtime}'s int8 form is for students"
    quantizers = [
        m for m in model.graph.modules() if isinstance(m, ActivationQuantizer | InputQuantizer)
    ]
    affine = sum(not m.symmetric for m in quantizers)
    if affine:
        return (
            f"{affine} of its {len(quantizers)} quantizers are affine, and {runtime} knows no zero "
            "points; compress again with --activations symmetric"
        )
    return None


def wide_weights(model: FaceModel) -> list[str]:
    """A line on weights of fewer than 8 bits, which such runtimes hold in int8; none without them."""
    layers = [m for m in model.graph.modules() if isinstance(m, QuantConv2d | QuantLinear)]
    narrow = sum(m.bits < 8 for m in layers)
    if not narrow:
        return []
    return [f"weights of fewer than 8 bits ({narrow} of {len(layers)} layers) lie in 8 bits each"]


def float_bias(
    m: QuantConv2d | QuantLinear | QuantAffine, input_scale: float
) -> npt.NDArray[np.float32]:
    """The values (O,) that a layer's int32 biases stand for, rounded as in all formats."""
    units = (np.float32(input_scale) * array(m.scale())).astype(np.float32).astype(np.float64)
    codes = np.rint(array(m.bias).astype(np.float64) / units)
    return np.asarray(codes * units, np.float32)
