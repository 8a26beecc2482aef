"""The place of the batch in a file's values. In a graph the batch is in front.

Exporters put another axis in front of the batch (attention's stacked query, key and value; tokens
first), or merge the batch with other axes (heads, windows). Such a value is remembered with its
:class:`Place`. Operators that move axes can read it, and operators that work wherever the batch is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Place:
    """The place of the batch in a file's value. The graph's value has the file's axes behind the batch.

    Attributes:
        axis: the axis of the file's value that holds the batch; -1 where a file of one crop has none.
        outer, inner: lengths that this axis holds beside the batch, varying slower and faster. Where
            their product is more than 1, the graph's value has an axis of that length for ``axis``.
    """

    axis: int = 0
    outer: int = 1
    inner: int = 1

    @property
    def beside(self) -> int:
        """The length of the graph's axis that stands for ``axis``; 1 where there is none."""
        return self.outer * self.inner

    def rank(self, own: int) -> int:
        """The number of axes of the file's value, from that of the graph's value."""
        return own - (self.beside > 1 or self.axis < 0)

    def own(self, axis: int) -> int | None:
        """The graph's number of the file's axis (not negative); None where it is only the batch."""
        if axis == self.axis and self.beside == 1:
            return None
        return axis if 0 <= self.axis < axis and self.beside == 1 else axis + 1

    def shape(self, own: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the file's value, from that of the graph's value."""
        batch, *rest = own
        if self.beside > 1:
            rest[self.axis] *= batch
        elif self.axis >= 0:
            rest.insert(self.axis, batch)
        return tuple(rest)

    def front(self, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A file's value with its axes as in the graph."""
        if self.axis < 0:
            return value[None]
        shape, axis = value.shape, self.axis
        batch = shape[axis] // self.beside
        parted = value.reshape(*shape[:axis], self.outer, batch, self.inner, *shape[axis + 1 :])
        first = np.moveaxis(parted, axis + 1, 0)
        beside = () if self.beside == 1 else (self.beside,)
        return first.reshape(batch, *shape[:axis], *beside, *shape[axis + 1 :])

    def reshaped(self, shape: tuple[int, ...], target: list[int], given: list[int]) -> Place | None:
        """The place after a reshape; None where the reshape splits the batch.

        Args:
            shape: of the file's value, for one crop.
            target: the same after the reshape.
            given: the target that the file gives; an axis of -1 or 0 in it is likely the batch.
        """
        if self.axis < 0:
            return FRONT if target[:1] == [1] else self
        slower = prod(shape[: self.axis]) * self.outer
        faster = prod(shape[self.axis + 1 :]) * self.inner
        found = []
        for axis, length in enumerate(target):
            before, after = prod(target[:axis]), prod(target[axis + 1 :])
            if slower % before or faster % after:
                continue
            place = Place(axis, slower // before, faster // after)
            if place.beside == length:
                found.append((place.beside, given[axis] > 0, axis, place))
        return min(found)[-1] if found else None

    def without(self, axes: list[int]) -> Place:
        """The place after the file's ``axes`` are removed."""
        if self.axis in axes:
            return LEFT_OUT
        return Place(self.axis - sum(axis < self.axis for axis in axes), self.outer, self.inner)

    def at(self, axis: int) -> Place:
        """The same place at another axis."""
        return Place(axis, self.outer, self.inner)


FRONT, LEFT_OUT = Place(), Place(-1)
