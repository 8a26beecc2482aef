"""Containers of faces: what a writer of our own put in comes out, and damage is named."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, cap, load_faces, open_source
from efquantface.data.inspection import describe_source, extract_source
from efquantface.data.listing import read_list, write_list
from efquantface.data.pickles import load_plain
from efquantface.data.recordio import RecordFile, RecSource
from efquantface.data.verification_bin import BinSource
from efquantface.errors import DataError
from formats import MAGIC, png, record, write_rec


@pytest.fixture
def rec(tmp_path: Path, faces: FaceSet) -> Path:
    path = tmp_path / "train.rec"
    write_rec(path, [png(i) for i in faces.images], [int(i) for i in faces.identities])
    return path


# records -----------------------------------------------------------------------------------


def test_rec_gives_images_and_identities(rec: Path, faces: FaceSet, contract: FaceContract) -> None:
    loaded = load_faces(rec, contract)
    np.testing.assert_array_equal(loaded.images, faces.images)
    np.testing.assert_array_equal(loaded.identities, faces.identities)
    assert loaded.names[3] == "train.rec#4"
    assert len(load_faces(rec.parent, contract)) == len(faces)  # the folder that holds it


def test_rec_without_header_or_index(
    tmp_path: Path, faces: FaceSet, contract: FaceContract
) -> None:
    path = tmp_path / "x.rec"
    write_rec(path, [png(i) for i in faces.images[:8]], [0, 0, 0, 0, 1, 1, 1, 1], header=False)
    path.with_suffix(".idx").unlink()
    loaded = load_faces(path, contract)
    np.testing.assert_array_equal(loaded.images, faces.images[:8])
    assert loaded.identities.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_payload_with_the_magic_number_inside(tmp_path: Path) -> None:
    payloads = [b"before" + MAGIC + b"between!" + MAGIC + b"x", MAGIC, b"", b"abc"]
    path = tmp_path / "m.rec"
    path.write_bytes(b"".join(record(p) for p in payloads))
    file = RecordFile(path)
    assert [file.payload(k) for k in range(4)] == payloads


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d[:-10], r"truncated.*byte \d+"),
        (lambda d: b"\0\0\0\0" + d[4:], "no record at byte 0 .*0x00000000"),
        (lambda d: b"", "is 0 bytes long"),
        (lambda d: MAGIC + struct.pack("<I", 2 << 29 | 4) + d[8:], "continuation flag 2"),
    ],
)
def test_damaged_rec(rec: Path, damage: Any, message: str) -> None:
    data = damage(rec.read_bytes())
    rec.write_bytes(data)
    rec.with_suffix(".idx").unlink()
    with pytest.raises(DataError, match=message):
        RecSource(rec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\t0\n1\t99999999\n", "key 1 points at byte 99999999"),
        ("0\t4\n", r"no record at byte 4"),
        ("zero\t0\n", r":1: 'zero\\t0' is not"),
        ("", "lists no records"),
        ("0\t0\n1\t40\n", "promises images up to 48"),
    ],
)
def test_damaged_index(rec: Path, text: str, message: str) -> None:
    rec.with_suffix(".idx").write_text(text)
    with pytest.raises(DataError, match=message):
        RecSource(rec)


def test_absurd_label_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    path.write_bytes(record(struct.pack("<IfQQ", 1 << 30, 0, 0, 0) + b"image"))
    with pytest.raises(DataError, match="label of 1073741824 numbers"):
        RecSource(path)
    path.write_bytes(record(b"short"))
    with pytest.raises(DataError, match="has 5 bytes"):
        RecSource(path)


def test_cap_reads_only_what_it_keeps(rec: Path) -> None:
    source = open_source(rec)
    index = cap(source.identities, 10, seed=1)
    assert len(index) == 8  # two people of four
    assert len(np.unique(source.identities[index])) == 2


# verification files ------------------------------------------------------------------------


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
    modern = modern.replace(
        b"numpy.core.multiarray", b"numpy._core.multiarray"
    )  # written by NumPy 1
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


# parquet, lists, verbs ---------------------------------------------------------------------


def test_parquet(tmp_path: Path, faces: FaceSet, contract: FaceContract) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    images = [png(i) for i in faces.images]
    path = tmp_path / "f.parquet"
    for column in (images, [{"bytes": i, "path": None} for i in images]):
        table = arrow.table({"image": column, "label": [int(i) for i in faces.identities]})
        parquet.write_table(table, path, row_group_size=7)
        loaded = load_faces(path, contract)
        np.testing.assert_array_equal(loaded.images, faces.images)
        np.testing.assert_array_equal(loaded.identities, faces.identities)
    parquet.write_table(arrow.table({"x": [1]}), path)
    with pytest.raises(DataError, match="no column named"):
        open_source(path)
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match="not a whole parquet"):
        open_source(path)


def test_lists_name_items_of_any_source(
    rec: Path, faces_dir: Path, faces: FaceSet, contract: FaceContract
) -> None:
    path = rec.parent / "chosen.txt"
    path.write_text("# a comment\ntrain.rec#5\nfaces/person00/person00_0001.png\ntrain.rec#9\n")
    loaded = load_faces(path, contract)
    np.testing.assert_array_equal(loaded.images, faces.images[[4, 0, 8]])
    assert len(np.unique(loaded.identities)) == 3
    write_list(path, open_source(faces_dir), [7, 2], "two")
    again = load_faces(path, contract)
    np.testing.assert_array_equal(again.images, faces.images[[7, 2]])
    assert [again.identity_names[i] for i in again.identities] == ["person01", "person00"]
    write_list(path, open_source(rec), range(5, 9), "of records")
    np.testing.assert_array_equal(load_faces(path, contract).images, faces.images[5:9])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.rec#999\n", "no image with key 999"),
        ("train.rec#x\n", "no record number"),
        ("gone.png\n", "'gone.png' is not an image"),
        ("gone.rec#1\n", "no such file"),
        ("# nothing\n", "lists no items"),
        ("train.rec#1\ta\ntrain.rec#2\n", "some items have an identity"),
    ],
)
def test_lists_that_lead_nowhere(rec: Path, text: str, message: str) -> None:
    path = rec.parent / "list.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_list(path)


def test_inspect_and_extract(
    rec: Path, tmp_path: Path, faces: FaceSet, contract: FaceContract
) -> None:
    text = "\n".join(describe_source(open_source(rec)))
    assert "48 images" in text
    assert "12 identities of 4 to 4 images" in text
    assert "32x32 (48)" in text
    out = tmp_path / "out"
    assert extract_source(open_source(rec), out) == (48, 0)
    np.testing.assert_array_equal(load_faces(out, contract).images, faces.images)
    next(out.rglob("*.png")).unlink()
    assert extract_source(open_source(rec), out) == (1, 47)
    broken = make_faces(2, 2)
    write_rec(rec, [png(broken.images[0]), b"no image"], [0, 0])
    assert "1 of them cannot be read" in "\n".join(describe_source(open_source(rec)))


def test_unknown_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"\.rec, \.bin, \.parquet"):
        open_source(tmp_path / "x.zip")
