"""Numbers of LiteRT's schema (``schema.fbs``) that our files use: operators, options, types, slots.

They never change: slots are only added to a flatbuffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

IDENTIFIER = b"TFL3"
VERSION = 3
RELU = 1  # fused activation
SAME, VALID = 0, 1  # padding

TYPES: dict[np.dtype[Any], int] = {
    np.dtype(np.float32): 0,
    np.dtype(np.int32): 2,
    np.dtype(np.int8): 9,
}


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        code: its number.
        version: the first version with all that we write.
        options: number of its options' table in the union; 0 without options.
        slots: of each option that we set, by name: slot and kind ("Int32", "Int8", "Float32", "Bool").
    """

    code: int
    version: int
    options: int = 0
    slots: tuple[tuple[str, int, str], ...] = ()

    def slot(self, name: str) -> tuple[int, str]:
        """Slot and kind of the option ``name``."""
        return next((slot, kind) for option, slot, kind in self.slots if option == name)


_FUSED = (("fused", 0, "Int8"),)
_STRIDES = (
    ("padding", 0, "Int8"),
    ("stride_w", 1, "Int32"),
    ("stride_h", 2, "Int32"),
)
_POOL = (*_STRIDES, ("filter_w", 3, "Int32"), ("filter_h", 4, "Int32"), ("fused", 5, "Int8"))
_KEEP = (("keep_dims", 0, "Bool"),)

OPERATORS: dict[str, Operator] = {
    "ADD": Operator(0, 2, 11, _FUSED),
    "CONCATENATION": Operator(2, 2, 10, (("axis", 0, "Int32"),)),
    "CONV_2D": Operator(
        3,
        3,
        1,
        (
            *_STRIDES,
            ("fused", 3, "Int8"),
            ("dilation_w", 4, "Int32"),
            ("dilation_h", 5, "Int32"),
        ),
    ),
    "DEPTHWISE_CONV_2D": Operator(
        4,
        3,
        2,
        (
            *_STRIDES,
            ("multiplier", 3, "Int32"),
            ("fused", 4, "Int8"),
            ("dilation_w", 5, "Int32"),
            ("dilation_h", 6, "Int32"),
        ),
    ),
    "DEQUANTIZE": Operator(6, 5),
    "FULLY_CONNECTED": Operator(9, 12, 8, (("fused", 0, "Int8"), ("keep_dims", 2, "Bool"))),
    "LOGISTIC": Operator(14, 1),
    "MAX_POOL_2D": Operator(17, 2, 5, _POOL),
    "MUL": Operator(18, 2, 21, _FUSED),
    "RELU": Operator(19, 1),
    "RELU6": Operator(21, 1),
    "RESHAPE": Operator(22, 1),
    "SOFTMAX": Operator(25, 1, 9, (("beta", 0, "Float32"),)),
    "TANH": Operator(28, 1),
    "PAD": Operator(34, 2, 22),
    "TRANSPOSE": Operator(39, 2, 26),
    "MEAN": Operator(40, 2, 27, _KEEP),
    "SUB": Operator(41, 1, 28, _FUSED),
    "DIV": Operator(42, 1, 29, _FUSED),
    "STRIDED_SLICE": Operator(45, 2, 32, (("begin_mask", 0, "Int32"), ("end_mask", 1, "Int32"))),
    "EXP": Operator(47, 1),
    "PRELU": Operator(54, 1),
    "MAXIMUM": Operator(55, 1, 39),
    "MINIMUM": Operator(57, 1, 39),
    "SIN": Operator(66, 1),
    "LOG": Operator(73, 1),
    "SUM": Operator(74, 1, 27, _KEEP),
    "SQRT": Operator(75, 1),
    "RSQRT": Operator(76, 1),
    "REDUCE_MAX": Operator(82, 1, 27, _KEEP),
    "REDUCE_MIN": Operator(89, 1, 27, _KEEP),
    "ABS": Operator(101, 1),
    "CEIL": Operator(104, 1),
    "COS": Operator(108, 1),
    "QUANTIZE": Operator(114, 2),
    "ROUND": Operator(116, 1),
    "FLOOR": Operator(8, 1),
    "BATCH_MATMUL": Operator(126, 1, 101),
    "GELU": Operator(150, 1, 116),
}
