"""Verification files: pickles whose images and decisions come out, and nothing is called."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efquantface.data.faces import FaceSet
from efquantface.data.pickles import load_plain
from efquantface.data.verification_bin import BinSource
from efquantface.errors import DataError
from formats import png


def bin_data(faces: FaceSet) -> tuple[list[bytes], list[bool]]:
    order = [(0, 1), (4, 5), (0, 4), (1, 8)]
    images = [png(faces.images[i]) for pair in order for i in pair]
    return images, [True, True, False, False]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_bin_of_every_pickle_protocol(tmp_path: Path, faces: FaceSet, protocol: int) -> None:
    path = tmp_path / "lfw.bin"
    path.write_bytes(pickle.dumps(bin_data(faces), protocol=protocol))
    source = BinSource(path)
    assert len(source) == 5  # each distinct image once
    assert source.a.tolist() == [0, 2, 0, 1]
    assert source.same.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(source.read(2), faces.images[4])


def test_bin_of_arrays_and_numpy_decisions(tmp_path: Path, faces: FaceSet) -> None:
    images, same = bin_data(faces)
    column = [np.frombuffer(i, np.uint8)[:, None] for i in images]
    for protocol in (2, 4, 5):
        path = tmp_path / "a.bin"
        path.write_bytes(pickle.dumps((column, [np.bool_(s) for s in same]), protocol=protocol))
        np.testing.assert_array_equal(BinSource(path).read(0), faces.images[0])
        path.write_bytes(pickle.dumps((column, np.asarray(same)), protocol=protocol))
        assert BinSource(path).same.tolist() == same


def test_bin_of_python_2_and_numpy_1(tmp_path: Path, faces: FaceSet) -> None:
    """Python 2's ``str`` is SHORT_BINSTRING or BINSTRING; NumPy 1 calls its module numpy.core."""
    images, same = bin_data(faces)
    data = b"\x80\x02]q\x00("
    for image in images:
        data += b"T" + struct.pack("<i", len(image)) + image
    data += b"e](" + b"".join(b"\x88" if s else b"\x89" for s in same) + b"e\x86q\x01."
    path = tmp_path / "py2.bin"
    path.write_bytes(data)
    np.testing.assert_array_equal(BinSource(path).read(0), faces.images[0])
    modern = pickle.dumps(np.arange(5, dtype=np.uint8), protocol=2)
    modern = modern.replace(b"numpy.core.multiarray", b"numpy._core.multiarray")  # NumPy 1 wrote it
    old = modern.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != modern
    path.write_bytes(old)
    np.testing.assert_array_equal(load_plain(path), np.arange(5))


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("called",))


def test_nothing_is_ever_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.bin"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(([Evil()], [True]), protocol=protocol))
        with pytest.raises(DataError, match=r"(builtins|__builtin__)\.print at byte \d+"):
            BinSource(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (([b"x"], [True]), "1 images for 1 pairs"),
        (([], []), "0 images"),
        ((b"x",), "no pair of"),
        (([b"x", 5], [True]), "image 1 is int"),
        (([b"x", b"y"], ["yes"]), "decision of pair 0 is 'yes'"),
        ({"a": 1}, "opcode EMPTY_DICT"),
    ],
)
def test_bins_of_something_else(tmp_path: Path, data: Any, message: str) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(pickle.dumps(data, protocol=4))
    with pytest.raises(DataError, match=message):
        BinSource(path)


def test_damaged_bin(tmp_path: Path, faces: FaceSet) -> None:
    path = tmp_path / "x.bin"
    whole = pickle.dumps(bin_data(faces), protocol=4)
    for cut in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="byte"):
            BinSource(path)
    path.write_bytes(b"no pickle at all")
    with pytest.raises(DataError, match="no pickle"):
        BinSource(path)


def test_an_image_named_often_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    image = np.zeros(1_000_000, np.uint8)
    path.write_bytes(pickle.dumps(([image] * 2000, [True] * 1000), protocol=2))
    tracemalloc.start()
    source = BinSource(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source.images) == 1
    assert len(source.a) == 1000
    assert most < 8 * path.stat().st_size


def test_a_decision_too_large_to_print(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(pickle.dumps(([b"a", b"b"], [10**6000]), protocol=2))
    with pytest.raises(DataError, match=r"x\.bin: the decision of pair 0 is int"):
        BinSource(path)
