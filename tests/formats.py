"""Writers of the field's file formats, independent of the readers under test."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

MAGIC = struct.pack("<I", 0xCED7230A)


def png(image: np.ndarray) -> bytes:
    """An image as PNG bytes: what is written is what is read."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def record(payload: bytes) -> bytes:
    """A RecordIO record; split where the payload holds the magic number, as dmlc's writer does."""
    parts = payload.split(MAGIC)
    out = b""
    for i, part in enumerate(parts):
        flag = 0 if len(parts) == 1 else 1 if i == 0 else 3 if i == len(parts) - 1 else 2
        out += MAGIC + struct.pack("<I", flag << 29 | len(part)) + part
        out += b"\0" * (-len(part) % 4)
    return out


def face_record(label: float | Sequence[float], image: bytes, number: int) -> bytes:
    """The payload of a face record."""
    if isinstance(label, Sequence):
        head = struct.pack("<IfQQ", len(label), 0, number, 0)
        return head + struct.pack(f"<{len(label)}f", *label) + image
    return struct.pack("<IfQQ", 0, label, number, 0) + image


def write_rec(
    path: Path, images: Sequence[bytes], labels: Sequence[int], header: bool = True
) -> None:
    """train.rec and train.idx as InsightFace packs them: header record, images, identity records."""
    payloads: list[tuple[int, bytes]] = []
    count = len(images)
    people = sorted(set(labels))
    if header:
        payloads.append((0, face_record((count + 1.0, count + 1.0 + len(people)), b"", 0)))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        payloads.append((i + 1, face_record(float(label), image, i + 1)))
    if header:
        for j, person in enumerate(people):
            rows = [i + 1 for i, label in enumerate(labels) if label == person]
            label = (float(rows[0]), float(rows[-1] + 1))
            payloads.append((count + 1 + j, face_record(label, b"", count + 1 + j)))
    data, lines = b"", []
    for key, payload in payloads:
        lines.append(f"{key}\t{len(data)}\n")
        data += record(payload)
    path.write_bytes(data)
    path.with_suffix(".idx").write_text("".join(lines))


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    """Members of a tar, in order."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def agedb_splits(names: Sequence[str]) -> np.ndarray:
    """AgeDB: two splits of two pairs, the first name with each of the others, in cells of structs."""

    def entry(index: int) -> np.ndarray:
        return np.array([[(names[index], 30)]], dtype=[("path", object), ("age", object)])

    splits = np.empty((2, 1), object)
    for fold in range(2):
        table = np.empty((2, 2), object)
        table[:, 0] = [entry(0), entry(1)]
        table[:, 1] = [entry(0), entry(2)]
        splits[fold, 0] = np.array([[(table,)]], dtype=[("pairs", object)])
    return splits
