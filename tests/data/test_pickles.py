"""Plain data comes out of a pickle as Python's own unpickler gives it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from efquantface.data.pickles import load_plain
from efquantface.errors import DataError

ARRAYS = hnp.arrays(
    st.sampled_from(["u1", "i1", "?", "<u2", "<i2", "<i4", "<u4", "<i8", "<u8", "<f4", "<f8"]),
    hnp.array_shapes(max_dims=3, max_side=4),
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=300)
    | ARRAYS
    | ARRAYS.map(np.asfortranarray)
)
DATA = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple)
)
PROTOCOLS = st.integers(0, pickle.HIGHEST_PROTOCOL)


def equal(a: Any, b: Any) -> bool:
    """Of the same kind and content; NaN equals NaN."""
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and np.array_equal(a, b, a.dtype.kind == "f")
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b or (a != a and b != b))


@given(data=DATA, protocol=PROTOCOLS)
def test_data_comes_out_as_from_pickle(
    data: Any, protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("pickle") / "a.bin"
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    assert equal(load_plain(path), pickle.loads(path.read_bytes()))


@given(data=DATA, protocol=PROTOCOLS, cut=st.floats(0, 1, exclude_max=True))
@example(data=[b"image"], protocol=4, cut=0.0)
def test_a_cut_pickle_is_named(
    data: Any, protocol: int, cut: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("pickle") / "a.bin"
    whole = pickle.dumps(data, protocol=protocol)
    path.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(DataError, match=r"a\.bin"):
        load_plain(path)


def test_one_list_named_twice_comes_twice(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("pickle") / "a.bin"
    image = [1, b"x"]
    path.write_bytes(pickle.dumps([image, image, (image,)]))
    assert load_plain(path) == [image, image, (image,)]
