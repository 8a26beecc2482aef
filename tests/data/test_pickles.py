"""Plain data comes out of a pickle as Python's own unpickler gives it."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from pathlib import Path
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


def doubled(levels: int, pair: bytes) -> bytes:
    """A container that holds one twice that holds one twice, and so on."""
    body = b"".join(pair.replace(b"?", bytes([i])) + b"q" + bytes([i + 1]) for i in range(levels))
    return b"\x80\x02(" + b")q\x00" + body + b"t."


@pytest.mark.parametrize("pair", [b"h?h?\x86", b"](h?h?e"])
def test_doubling_containers_are_read_in_linear_time(pair: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(doubled(60, pair))
    found = load_plain(path)[-1]
    for _ in range(60):
        assert len(found) == 2
        assert found[0] is found[1]
        found = found[0]
    assert found == ()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x02]q\x00h\x00a.", "contains itself"),
        (b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".", "nested deeper"),
        (b"\x80\x02N" + b"\x85" * 50_000 + b".", "nested deeper"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02(.", "damaged"),
        (b"\x80\x02cnumpy\ndtype\n.", "damaged"),
    ],
)
def test_containers_that_no_file_has(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.bin.*{said}"):
        load_plain(path)


@pytest.mark.parametrize("opcode", [b"\x8e", b"\x8d", b"\x96"])
@pytest.mark.parametrize("length", [2**32, 2**40, 2**62, 2**63 + 5])
def test_lengths_that_the_file_does_not_have_cost_nothing(
    opcode: bytes, length: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x80\x05" + opcode + struct.pack("<Q", length) + b"abc.")
    tracemalloc.start()
    with pytest.raises(DataError, match=r"a\.bin"):
        load_plain(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


def test_one_text_is_not_converted_again_and_again(tmp_path: Path) -> None:
    """40 bytes a call would give the text's length each time."""
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x00"
    call = b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R"
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x80\x02(" + text + b"c_codecs\nencode\nq\x01" + call + b"t.")
    with pytest.raises(DataError, match="a name"):  # one is data, the function itself is not
        load_plain(path)
    path.write_bytes(b"\x80\x02(" + text + b"c_codecs\nencode\nq\x01" + call * 50 + b"t.")
    with pytest.raises(DataError, match="more conversions"):
        load_plain(path)
