"""Registers the quantized operators in the vocabulary of graphs, so that checkpoints hold them."""

from __future__ import annotations

from efquantface.graph.graph import KINDS, OpKind, conv_attrs, tuples
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

KINDS["quantizer"] = OpKind(
    ActivationQuantizer,
    lambda m: {
        "bits": m.bits,
        "rectified": m.rectified,
        "max_value": m.max_value,
        "symmetric": m.symmetric,
    },
    ActivationQuantizer,
)
KINDS["input_quantizer"] = OpKind(
    InputQuantizer,
    lambda m: {
        "mean": m.mean.tolist(),
        "std": m.std.tolist(),
        "step": m.step_value,
        "zero_point": m.zero_value,
        "pixels": m.pixels,
        "symmetric": m.symmetric,
    },
    InputQuantizer,
)
KINDS["quant_conv"] = OpKind(
    QuantConv2d,
    lambda m: {**conv_attrs(m), "bits": m.bits},
    lambda **a: QuantConv2d(**tuples(a)),
)
KINDS["quant_linear"] = OpKind(
    QuantLinear,
    lambda m: {"in_features": m.in_features, "out_features": m.out_features, "bits": m.bits},
    QuantLinear,
)
KINDS["quant_affine"] = OpKind(
    QuantAffine, lambda m: {"channels": m.channels, "falling": m.falling}, QuantAffine
)
