"""The operators of float networks and students, which our checkpoints may hold."""

from __future__ import annotations

from efquantface.graph import ops
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

QUANTIZED = ops.vocabulary(
    ActivationQuantizer, InputQuantizer, QuantConv2d, QuantLinear, QuantAffine
)
OPERATORS: ops.Vocabulary = {**ops.OPERATORS, **QUANTIZED}
