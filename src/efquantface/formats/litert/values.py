"""What stands for a value of our graph in the file: a tensor, the order of its axes, and its codes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from efquantface.quantize.fake_quant import ActivationQuantizer

LAST = (0, 2, 3, 1)  # LiteRT's kernels read a map with channels last


@dataclass(frozen=True)
class Codes:
    """How int8 codes are stored.

    Attributes:
        scale: float32.
        zero_point: of the stored codes.
        offset: added to the student's codes.
    """

    scale: np.float32
    zero_point: int
    offset: int


@dataclass(frozen=True)
class Value:
    """A tensor of the file.

    Attributes:
        tensor: index of the tensor.
        shape: of our graph's value, with a batch of 1 first.
        order: for each axis of the tensor, the axis of ours that it is.
        codes: None for float.
        columns: of a vector that was a map: for each entry of the tensor, the entry of ours that it is.
    """

    tensor: int
    shape: tuple[int, ...]
    order: tuple[int, ...]
    codes: Codes | None = None
    columns: npt.NDArray[np.int64] | None = None

    @property
    def stored(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(self.shape[axis] for axis in self.order)

    def at(self, axis: int) -> int:
        """The axis of the tensor that is our ``axis``."""
        return self.order.index(axis % len(self.shape))

    def made(self, tensor: int) -> Value:
        """A value of the same shape and codes in another tensor."""
        return replace(self, tensor=tensor)


@dataclass(frozen=True)
class Placed:
    """Where a quantizer's codes are stored, so that int8 itself limits them.

    Attributes:
        first: codes as the operator in front gives them: the largest is 127, or all 256 are used.
        rectified: the operator in front also limits them to the zero point.
        last: the same codes shifted to the other end of int8, which limits them below; None where they
            need no other limit.
    """

    first: Codes
    rectified: bool
    last: Codes | None


def placed(m: ActivationQuantizer, scale: np.float32, can_rectify: bool) -> Placed:
    """Where a quantizer's codes are stored.

    Args:
        m: the quantizer.
        scale: of its codes in the file.
        can_rectify: the operator in front of it can have a fused ReLU.
    """
    _, zero_point = m.qparams()

    def codes(offset: int) -> Codes:
        return Codes(scale, zero_point + offset, offset)

    top, bottom = codes(127 - m.qmax), codes(-128 - m.qmin)
    if top == bottom:
        return Placed(top, False, None)
    if m.qmin == zero_point and can_rectify:
        return Placed(top, True, None)
    return Placed(top, False, bottom)


def regrouped(value: Value, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of a reshaped value's axes if memory need not move; None if it must.

    Axes that a reshape merges or splits belong together. Memory need not move where they lie side by
    side in it.
    """
    lying = [axis for axis in value.order[1:] if value.shape[axis] > 1]
    places = []
    for old, new in _groups(value.shape, shape)[1:]:
        long = [axis for axis in old if value.shape[axis] > 1]
        at = lying.index(long[0]) if long else -1  # groups of one entry may lie anywhere
        if lying[at : at + len(long)] != long and long:
            return None
        places.append((at, new))
    return (0, *(axis for _, new in sorted(places, key=lambda p: p[0]) for axis in new))


def _groups(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Groups of axes of two shapes of one size that a reshape merges or splits; the batch by itself."""
    groups: list[tuple[list[int], list[int]]] = [([0], [0])]
    i = j = 1
    while i < len(before) or j < len(after):
        old, new, left, right = list[int](), list[int](), 1, 1
        while True:
            if i < len(before) and (left <= right or j == len(after)):
                left *= before[i]
                old.append(i)
                i += 1
            elif j < len(after):
                right *= after[j]
                new.append(j)
                j += 1
            if left == right and (old or new) and (new or j == len(after)):
                break
        groups.append((old, new))
    return groups
