"""MATLAB files come out as scipy reads them, and nothing that is damaged ends the process."""

from __future__ import annotations

import random
import re
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import loadmat, savemat

from efquantface.data.matlab import Struct, read_variable
from efquantface.errors import DataError

LEAVES = st.text("abcxyz_09é", min_size=1, max_size=9) | hnp.arrays(
    st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8"]),
    hnp.array_shapes(min_dims=2, max_dims=3, max_side=3),
    elements={"allow_nan": False},
)


def cells(items: list[Any]) -> np.ndarray:
    made = np.empty((len(items), 1), object)
    for place, item in enumerate(items):
        made[place, 0] = item
    return made


DATA = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(cells)
        | st.dictionaries(st.sampled_from(["name", "age", "id"]), inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


def equal(ours: Any, theirs: Any) -> bool:
    """What this package reads against what scipy reads."""
    if isinstance(ours, Struct):
        return ours.fields == theirs.dtype.names and all(
            equal(value, theirs[name]) for name, value in zip(ours.fields, ours.values, strict=True)
        )
    if isinstance(ours, str):
        return theirs.shape == (1,) and ours == theirs[0]
    if ours.shape != theirs.shape:
        return False
    if ours.dtype == object:
        return all(equal(a, b) for a, b in zip(ours.ravel(), theirs.ravel(), strict=True))
    return np.array_equal(ours, theirs)


@given(data=DATA, packed=st.booleans())
def test_equals_scipy(data: Any, packed: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    savemat(path, {"other": np.eye(2), "it": data}, do_compression=packed)
    assert equal(read_variable(path, "it"), loadmat(path)["it"])


def whole(compressed: bool) -> bytes:
    stream = BytesIO()
    people = cells([{"name": f"{i}_Person_{30 + i}_f", "age": 30 + i} for i in range(6)])
    savemat(stream, {"splits": cells([people, people])}, do_compression=compressed)
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_is_a_typed_error(compressed: bool, tmp_path: Path) -> None:
    """Bytes changed all over the file, and lengths cut: data or DataError."""
    path, good = tmp_path / "a.mat", whole(compressed)
    draw, refused = random.Random(0), 0
    step = 1 if compressed else 7
    for place in range(0, len(good), step):
        bad = bytearray(good)
        bad[place] ^= 1 << draw.randrange(8)
        for data in (bytes(bad), good[:place]):
            path.write_bytes(data)
            try:
                read_variable(path, "splits")
            except DataError:
                refused += 1
    assert refused > len(good) / step  # every cut, and more


def header() -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def element(kind: int, content: bytes) -> bytes:
    size = len(content)
    return np.array([kind, size], "<u4").tobytes() + content + bytes(-size % 8)


def matrix(kind: int, dims: list[int], body: bytes, name: bytes = b"it") -> bytes:
    flags = np.array([kind, 0], "<u4").tobytes()
    sizes = np.array(dims, "<i4").tobytes()
    return element(14, element(6, flags) + element(5, sizes) + element(1, name) + body)


def nested(levels: int) -> bytes:
    made = matrix(6, [1, 1], element(9, bytes(8)))
    for _ in range(levels):
        made = matrix(1, [1, 1], made)
    return made


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no MATLAB file"),
        (b"MATLAB 7.3 MAT-file".ljust(600), "-v7"),
        (header(), "no variable 'it', only none"),
        (header() + matrix(6, [1, 1], element(9, bytes(8)), b"x"), "only 'x'"),
        (header() + matrix(1, [2**20, 2**10], b""), "elements in"),
        (header() + matrix(2, [2**20, 2**10], element(5, b"\x08\0\0\0")), "elements in"),
        (header() + nested(60), "nested deeper"),
        (header() + element(15, zlib.compress(bytes(65 << 20))), "larger than 64 MB"),
        (header() + element(15, b"no stream"), "damaged"),
        (header() + matrix(5, [1, 1], element(9, bytes(8))), "class 5"),
        (header() + matrix(4, [1, 2], element(16, b"\xff\xfe")), "utf-8"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_files_that_are_refused(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.mat.*{re.escape(said)}"):
        read_variable(path, "it")
