"""Where a file's values have their batch: every number against NumPy on batches of several sizes."""

from __future__ import annotations

import numpy as np
import pytest

from efquantface.importers.onnx.places import FRONT, LEFT_OUT, Place

BATCH = 3


def numbered(place: Place, shape: tuple[int, ...]) -> np.ndarray:
    """A file's value whose entries say to which crop they belong (hundreds) and which they are."""
    each = np.arange(int(np.prod(shape)) // 1).reshape(shape)
    crops = np.stack([each + 1000 * n for n in range(BATCH)])  # as the graph has it
    own = crops.shape
    parts = list(own[1:])
    if place.beside > 1:
        parts[place.axis : place.axis + 1] = [place.outer, place.inner]
        spread = np.moveaxis(crops.reshape(BATCH, *parts), 0, place.axis + 1)
        return spread.reshape(place.shape(own))
    return np.moveaxis(crops, 0, place.axis)


PLACES = {
    "in front": (FRONT, (4, 5)),
    "second": (Place(1), (4, 5)),
    "last": (Place(2), (4, 5)),
    "with heads": (Place(0, 1, 2), (2, 4, 5)),
    "tokens first, with heads": (Place(1, 1, 2), (4, 2, 5)),
    "behind tokens on one axis": (Place(0, 4, 1), (4, 5)),
    "between": (Place(1, 2, 3), (4, 6, 5)),
}


@pytest.mark.parametrize("name", PLACES)
def test_front_takes_the_batch_out(name: str) -> None:
    place, own = PLACES[name]
    value = numbered(place, own)
    assert value.shape == place.shape((BATCH, *own))
    assert value.ndim == place.rank(len(own) + 1)
    front = place.front(value)
    assert front.shape == (BATCH, *own)
    assert (front // 1000 == np.arange(BATCH).reshape(-1, *(1,) * len(own))).all()
    assert (front[0].reshape(-1) == np.arange(front[0].size)).all()


@pytest.mark.parametrize("name", PLACES)
def test_own_axes_have_the_files_lengths(name: str) -> None:
    place, own = PLACES[name]
    shape = place.shape((1, *own))
    for axis, length in enumerate(shape):
        found = place.own(axis)
        if found is None:
            assert axis == place.axis
            assert length == 1
        else:
            assert (1, *own)[found] == length


RESHAPES = [
    (FRONT, (4, 6), [-1, 2, 2, 6]),
    (FRONT, (4, 6), [-1, 6]),  # rows: the batch and four others on one axis
    (Place(0, 1, 4), (4, 6), [-1, 4, 6]),  # and back
    (Place(1), (4, 6), [4, -1, 3]),  # tokens first, heads beside the batch
    (Place(1, 1, 2), (4, 2, 3), [4, -1, 6]),
    (Place(1), (4, 6), [-1, 6]),  # tokens and batch on one axis
    (Place(0, 4, 1), (4, 6), [4, -1, 6]),
]


@pytest.mark.parametrize(("place", "own", "given"), RESHAPES, ids=str)
def test_reshape_keeps_track(place: Place, own: tuple[int, ...], given: list[int]) -> None:
    value = numbered(place, own)
    one = [s if s > 0 else value.size // BATCH // max(-int(np.prod(given)), 1) for s in given]
    found = place.reshaped(place.shape((1, *own)), one, given)
    assert found is not None
    front = found.front(value.reshape(given))
    assert (front.reshape(BATCH, -1) // 1000 == np.arange(BATCH)[:, None]).all()
    assert (front[0].reshape(-1) == np.arange(front[0].size)).all()


def test_a_batch_that_is_left_out() -> None:
    """Of a file of one crop; a first axis of 1 is the batch again."""
    assert LEFT_OUT.shape((1, 4, 6)) == (4, 6)
    assert LEFT_OUT.rank(3) == 2
    assert [LEFT_OUT.own(axis) for axis in (0, 1)] == [1, 2]
    assert LEFT_OUT.front(np.zeros((4, 6))).shape == (1, 4, 6)
    assert LEFT_OUT.reshaped((4, 6), [24], [-1]) == LEFT_OUT
    assert LEFT_OUT.reshaped((4, 6), [1, 24], [1, -1]) == FRONT
    assert FRONT.without([0]) == LEFT_OUT


def test_a_batch_torn_apart_has_no_place() -> None:
    assert Place(1).reshaped((4, 1, 6), [3, 8], [3, 8]) is None
