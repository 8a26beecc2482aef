"""The operators of canonical graphs. Every backbone is written in these few.

Each is an ``nn.Module`` that the graph calls by name. So weights train, move between devices and save
as in any PyTorch network. Its class declares its properties (:class:`Operator`). Write ``ops.Add`` after
``from efquantface.graph import ops``.
"""

from __future__ import annotations

from efquantface.graph.ops.base import (
    Operator,
    Vocabulary,
    is_island,
    moves_codes,
    vocabulary,
)
from efquantface.graph.ops.functions import Function, Reduce
from efquantface.graph.ops.islands import (
    Concat,
    Gelu,
    L2Normalize,
    LayerNorm,
    MatMul,
    Scale,
    Shift,
    Softmax,
    Standardize,
)
from efquantface.graph.ops.moves import (
    Flatten,
    Pick,
    Reshape,
    Slice,
    Transpose,
    ZeroPad,
)
from efquantface.graph.ops.weighted import (
    Affine,
    Conv2d,
    Linear,
    Normalize,
    PReLU,
    conv_attrs,
    conv_from,
    linear_from,
)
from efquantface.graph.ops.weightless import (
    Add,
    AvgPool2d,
    Clamp,
    GlobalAvgPool,
    MaxPool2d,
    Multiply,
    Sigmoid,
)

__all__ = [
    "OPERATORS",
    "Add",
    "Affine",
    "AvgPool2d",
    "Clamp",
    "Concat",
    "Conv2d",
    "Flatten",
    "Function",
    "Gelu",
    "GlobalAvgPool",
    "L2Normalize",
    "LayerNorm",
    "Linear",
    "MatMul",
    "MaxPool2d",
    "Multiply",
    "Normalize",
    "Operator",
    "PReLU",
    "Pick",
    "Reduce",
    "Reshape",
    "Scale",
    "Shift",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Standardize",
    "Transpose",
    "Vocabulary",
    "ZeroPad",
    "conv_attrs",
    "conv_from",
    "is_island",
    "linear_from",
    "moves_codes",
    "vocabulary",
]

OPERATORS = vocabulary(
    Normalize,
    Conv2d,
    Linear,
    Affine,
    PReLU,
    Clamp,
    Add,
    Multiply,
    Sigmoid,
    MaxPool2d,
    AvgPool2d,
    ZeroPad,
    GlobalAvgPool,
    Flatten,
    Reshape,
    Transpose,
    Slice,
    Pick,
    Concat,
    LayerNorm,
    Gelu,
    Softmax,
    L2Normalize,
    MatMul,
    Scale,
    Shift,
    Standardize,
    Function,
    Reduce,
)
