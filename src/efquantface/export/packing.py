"""Weights of few bits stored in few bits. The runtime unpacks them when it loads the file.

Up to 4 bits: an INT4 initializer and a Cast to INT8. 5 and 6 bits: four codes in three bytes, all layers
in one tensor, unpacked by a few integer operators. 7 and 8 bits: INT8. ONNX Runtime folds the unpacking
at load and runs the same QLinearConv as from an unpacked file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

PACKED_OPSET = 21  # the first whose Cast reads INT4
PACKED_IR_VERSION = 10
_OFFSET = 32  # makes signed 6-bit codes unsigned


def pack_six(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Signed 6-bit codes (N,), -32..31, as bytes (3, ceil(N / 4)).

    32 is added to the codes, and they are laid out in four rows. The lower six bits of a byte hold a
    code of the first three rows, its upper two bits a third of a code of the fourth row.

    Raises:
        ValueError: a code needs more than 6 bits.
    """
    if codes.size and (codes.min() < -_OFFSET or codes.max() >= _OFFSET):
        raise ValueError(f"codes {codes.min()}..{codes.max()} do not fit into 6 bits")
    padded = np.zeros(-(-codes.size // 4) * 4, np.uint8)
    padded[: codes.size] = codes.reshape(-1).astype(np.int16) + _OFFSET
    rows = padded.reshape(4, -1)
    shifts = np.array([[0], [2], [4]], np.uint8)
    parts = (rows[3] >> shifts) & 3
    packed: npt.NDArray[np.uint8] = (rows[:3] | (parts << 6)).astype(np.uint8)
    return packed


def int4_initializer(codes: npt.NDArray[np.int8], name: str) -> TensorProto:
    """Signed 4-bit codes, -8..7, of any shape as INT4: two per byte, the first in the lower half."""
    flat = codes.reshape(-1)
    padded = np.zeros(-(-flat.size // 2) * 2, np.uint8)
    padded[: flat.size] = flat.astype(np.uint8) & 15
    data = (padded[0::2] | (padded[1::2] << 4)).astype(np.uint8)
    tensor = TensorProto(name=name, data_type=TensorProto.INT4, dims=codes.shape)
    tensor.raw_data = data.tobytes()
    return tensor


def six_bit_graph(
    weights: list[tuple[str, npt.NDArray[np.int8]]], prefix: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes and initializers that unpack weights of 5 and 6 bits into INT8 tensors.

    Args:
        weights: the name of each INT8 tensor, and its codes of any shape.
        prefix: of all new names; no name in the graph may begin with it.

    Raises:
        ValueError: a code needs more than 6 bits.
    """
    packed = pack_six(np.concatenate([codes.reshape(-1) for _, codes in weights]))
    sizes = [codes.size for _, codes in weights]
    padding = 4 * packed.shape[1] - sum(sizes)
    flats = [f"{prefix}f{i}" for i in range(len(weights))]
    if padding:
        sizes, flats = [*sizes, padding], [*flats, f"{prefix}rest"]
    constants = {
        "codes": packed,
        "mask": np.uint8(63),
        "six": np.uint8(6),
        "shifts": np.array([[0], [2], [4]], np.uint8),
        "axis": np.array([0], np.int64),
        "offset": np.int32(_OFFSET),
        "flat": np.array([-1], np.int64),
        "sizes": np.array(sizes, np.int64),
    }
    initializers = [
        numpy_helper.from_array(np.asarray(v), prefix + k) for k, v in constants.items()
    ]

    def node(op: str, inputs: list[str], outputs: list[str], **attrs: Any) -> NodeProto:
        return helper.make_node(op, [prefix + i for i in inputs], outputs, **attrs)

    def named(*names: str) -> list[str]:
        return [prefix + name for name in names]

    int32, int8 = TensorProto.INT32, TensorProto.INT8
    nodes = [
        node("BitwiseAnd", ["codes", "mask"], named("low")),
        node("Cast", ["low"], named("low32"), to=int32),
        node("BitShift", ["codes", "six"], named("high"), direction="RIGHT"),
        node("BitShift", ["high", "shifts"], named("parts"), direction="LEFT"),
        node("Cast", ["parts"], named("parts32"), to=int32),
        node("ReduceSum", ["parts32", "axis"], named("last")),
        node("Concat", ["low32", "last"], named("all"), axis=0),
        node("Sub", ["all", "offset"], named("signed32")),
        node("Cast", ["signed32"], named("signed"), to=int8),
        node("Reshape", ["signed", "flat"], named("row")),
        node("Split", ["row", "sizes"], flats, axis=0),
    ]
    for flat, (output, codes) in zip(flats, weights, strict=False):
        shape = numpy_helper.from_array(np.array(codes.shape, np.int64), flat + "s")
        initializers.append(shape)
        nodes.append(helper.make_node("Reshape", [flat, flat + "s"], [output]))
    return nodes, initializers


def stored_bits(bits: int, packed: bool = True) -> int:
    """How many bits a weight of ``bits`` bits takes in a file: 4, 6 or 8."""
    if not packed or bits > 6:
        return 8
    return 6 if bits > 4 else 4
