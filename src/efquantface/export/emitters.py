"""The ONNX form of every operator: one table, one signature.

An emitter takes the writer, the name of the operator's module, the module, and the values that it reads.
It writes nodes and returns the value that they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from efquantface.errors import ExportError
from efquantface.export import float_forms, input_forms, integer_forms, island_forms, move_forms
from efquantface.export.values import Value, Writer
from efquantface.graph import ops
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

Emitter = Callable[[Writer, str, Any, list[Value]], Value]

Emitters = Mapping[type[ops.Operator], Emitter]

EMITTERS: Emitters = {
    ops.Normalize: input_forms.normalize,
    InputQuantizer: input_forms.input_quantizer,
    ActivationQuantizer: integer_forms.quantizer,
    QuantConv2d: integer_forms.quant_conv,
    QuantLinear: integer_forms.quant_linear,
    QuantAffine: integer_forms.quant_affine,
    ops.Conv2d: float_forms.conv,
    ops.Linear: float_forms.linear,
    ops.Affine: float_forms.affine,
    ops.PReLU: float_forms.prelu,
    ops.Add: float_forms.add,
    ops.Multiply: float_forms.multiply,
    ops.Sigmoid: float_forms.sigmoid,
    ops.AvgPool2d: float_forms.avg_pool,
    ops.GlobalAvgPool: float_forms.global_pool,
    ops.Clamp: move_forms.clamp,
    ops.ZeroPad: move_forms.pad,
    ops.MaxPool2d: move_forms.max_pool,
    ops.Flatten: move_forms.flatten,
    ops.Reshape: move_forms.reshape,
    ops.Transpose: move_forms.transpose,
    ops.Slice: move_forms.slice_,
    ops.Pick: move_forms.pick,
    ops.Concat: island_forms.concat,
    ops.LayerNorm: island_forms.layer_norm,
    ops.Gelu: island_forms.gelu,
    ops.Standardize: island_forms.standardize,
    ops.Function: island_forms.function,
    ops.Reduce: island_forms.reduce,
    ops.Softmax: island_forms.softmax,
    ops.L2Normalize: island_forms.l2_normalize,
    ops.MatMul: island_forms.matmul,
    ops.Scale: island_forms.scale,
    ops.Shift: island_forms.shift,
}


def emit(
    out: Writer,
    name: str,
    module: nn.Module,
    inputs: list[Value],
    emitters: Emitters = EMITTERS,
) -> Value:
    """Write the ONNX form of one operator. A runtime with forms of its own passes other ``emitters``.

    Raises:
        ExportError: the operator has no ONNX form.
    """
    emitter = emitters.get(type(module))  # type: ignore[arg-type]
    if emitter is None:
        raise ExportError(f"{name}: {type(module).__name__} has no ONNX form")
    return emitter(out, name, module, inputs)
