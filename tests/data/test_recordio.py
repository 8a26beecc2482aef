"""Records: what a writer of our own put in comes out, and damage is named."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, cap, load_faces, open_source
from efquantface.data.recordio import RecordFile, RecSource
from efquantface.errors import DataError
from formats import MAGIC, face_record, png, record, write_rec


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


PAYLOADS = st.lists(
    st.lists(st.sampled_from([MAGIC, MAGIC[:3], b"\0"]) | st.binary(max_size=9), max_size=6).map(
        b"".join
    ),
    min_size=1,
    max_size=8,
)


@given(payloads=PAYLOADS, shuffled=st.randoms(use_true_random=False))
@example(payloads=[b"before" + MAGIC + b"between!" + MAGIC + b"x", MAGIC, b""], shuffled=None)
def test_payloads_come_out_as_written(
    payloads: list[bytes], shuffled: random.Random | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With and without an index, whose order may be any; the magic number inside splits records."""
    path = tmp_path_factory.mktemp("rec") / "m.rec"
    records = [record(p) for p in payloads]
    path.write_bytes(b"".join(records))
    walked = RecordFile(path)
    assert [walked.payload(k) for k in walked.keys] == payloads
    lines = [f"{k + 3}\t{sum(map(len, records[:k]))}\n" for k in range(len(records))]
    if shuffled is not None:
        shuffled.shuffle(lines)
    path.with_suffix(".idx").write_text("".join(lines))
    indexed = RecordFile(path)
    assert [indexed.payload(k + 3) for k in range(len(payloads))] == payloads


@given(
    label=st.floats(width=32, allow_nan=False)
    | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5),
    image=st.binary(max_size=20),
)
def test_labels_come_out_as_written(
    label: float | list[float], image: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rec") / "l.rec"
    path.write_bytes(record(face_record(label, image, 7)))
    file = RecordFile(path)
    head = file.head(0)
    assert head.label == (tuple(label) if isinstance(label, list) else (label,))
    assert file.payload(0)[head.image :] == image


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


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_cut_file_is_called_truncated(rec: Path, share: float) -> None:
    """With its whole index, wherever the download stopped."""
    data = rec.read_bytes()
    rec.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"train\.rec: truncated"):
        RecSource(rec)


@pytest.mark.parametrize("label", [float("nan"), float("inf"), -float("inf")])
def test_labels_that_are_no_numbers(tmp_path: Path, label: float) -> None:
    for key, length in ((1, 1), (0, 2)):
        path = tmp_path / "n.rec"
        path.write_bytes(record(face_record([label] * length, b"" if key == 0 else b"x", key)))
        path.with_suffix(".idx").write_text(f"{key}\t0\n")
        with pytest.raises(DataError, match=rf"record {key} has the label"):
            RecSource(path)


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
