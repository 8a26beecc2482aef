"""The LiteRT form of every operator: one table, one signature.

An emitter takes the writer, the name of the operator's module, the module, and the values that it reads.
It writes operators and returns the value that they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from efquantface.formats.litert import (
    function_forms,
    input_forms,
    island_forms,
    layer_forms,
    move_forms,
    pool_forms,
    value_forms,
)
from efquantface.formats.litert.values import Value
from efquantface.formats.litert.writer import Writer
from efquantface.graph import ops
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

Emitter = Callable[[Writer, str, Any, list[Value]], Value]

EMITTERS: dict[type[ops.Operator], Emitter] = {
    ops.Normalize: input_forms.normalize,
    InputQuantizer: input_forms.input_quantizer,
    ActivationQuantizer: value_forms.quantizer,
    QuantConv2d: layer_forms.quant_conv,
    QuantLinear: layer_forms.quant_linear,
    QuantAffine: layer_forms.quant_affine,
    ops.Conv2d: layer_forms.conv,
    ops.Linear: layer_forms.linear,
    ops.Affine: layer_forms.affine,
    ops.PReLU: layer_forms.prelu,
    ops.Add: value_forms.add,
    ops.Multiply: value_forms.multiply,
    ops.Sigmoid: value_forms.sigmoid,
    ops.AvgPool2d: pool_forms.avg_pool,
    ops.GlobalAvgPool: pool_forms.global_pool,
    ops.Clamp: value_forms.clamp,
    ops.MaxPool2d: pool_forms.max_pool,
    ops.ZeroPad: move_forms.pad,
    ops.Flatten: move_forms.flatten,
    ops.Reshape: move_forms.reshape,
    ops.Transpose: move_forms.transpose,
    ops.Slice: move_forms.slice_,
    ops.Pick: move_forms.pick,
    ops.Concat: island_forms.concat,
    ops.LayerNorm: island_forms.layer_norm,
    ops.Gelu: island_forms.gelu,
    ops.Standardize: island_forms.standardize,
    ops.Function: function_forms.function,
    ops.Reduce: island_forms.reduce,
    ops.Softmax: island_forms.softmax,
    ops.L2Normalize: island_forms.l2_normalize,
    ops.MatMul: island_forms.matmul,
    ops.Scale: island_forms.scale,
    ops.Shift: island_forms.shift,
}
