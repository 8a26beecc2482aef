"""The teacher bank: embeddings of every crop and its mirror image, computed once, cached privately.

The processes of a run take blocks of crops in turns; the first process gathers the rows. So rows do not
depend on the number of processes. If the crops are in memory, the rows are in memory, too. Otherwise the
rows are in a file (N,2,D), which is memory-mapped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from efquantface.assets import cache_dir
from efquantface.data.views import BLOCK, blocks
from efquantface.distill.ranks import ALONE, Ranks
from efquantface.embedding.cache import cache_file, read_cached, write_cached
from efquantface.errors import EvaluationError
from efquantface.files import make_folder, whole
from efquantface.interfaces import Embeds, Progress

Float32 = npt.NDArray[np.float32]
_SENT = 64 << 20  # bytes that are sent at once


@dataclass(frozen=True)
class TeacherBank:
    """The teacher's embeddings of the crops and of their mirror images.

    Attributes:
        plain: (N,D) of the crops.
        mirrored: (N,D) of their mirror images.
        path: the file in the cache or the run's folder; None if there is none.
    """

    plain: Float32
    mirrored: Float32
    path: Path | None

    @classmethod
    def build(
        cls,
        teacher: Embeds,
        faces: npt.NDArray[np.uint8],
        *,
        key: str,
        cache: bool = True,
        spill: Path | None = None,
        ranks: Ranks = ALONE,
        progress: Progress | None = None,
    ) -> TeacherBank:
        """Compute the bank, or read it from the cache.

        Only the first process reads and writes the cache, which is private
        (:mod:`efquantface.embedding.cache`).

        Args:
            teacher: computes the embeddings.
            faces: uint8 RGB crops (N,H,W,3).
            key: identifies the teacher (a digest of its weights).
            cache: whether to keep the bank on disk.
            spill: the file for rows of crops that are not in memory, if they are not cached.
            ranks: the processes of the run.
            progress: called with (done, total) embeddings.

        Raises:
            WriteError: the file of rows cannot be written.
            EvaluationError: an embedding is not finite.
        """
        if not isinstance(faces, np.ndarray):
            return _in_a_file(teacher, faces, key, cache, spill, ranks, progress)
        path = None
        found: list[Float32] | None = None
        if cache and ranks.first:
            path = cache_file(key, faces)
            found = read_cached(path, ("plain", "mirrored"), len(faces))
        if not ranks.once(lambda: b"" if found is None else b"1"):
            parts = list(_embedded(teacher, faces, ranks, progress))
            if ranks.first:
                rows = np.concatenate(parts)
                found = [np.ascontiguousarray(rows[:, 0]), np.ascontiguousarray(rows[:, 1])]
                if path is not None:
                    write_cached(path, plain=found[0], mirrored=found[1])
        plain, mirrored = _handed_on(found, len(faces), ranks)
        return cls(plain, mirrored, path)


def _embedded(
    teacher: Embeds, faces: Any, ranks: Ranks, progress: Progress | None
) -> Iterator[Float32]:
    """Rows (n,2,D) of consecutive blocks, in the first process; nothing in the others."""
    starts = list(range(0, len(faces), BLOCK))
    for first in range(0, len(starts), ranks.count):
        turn = starts[first : first + ranks.count]
        sizes = [min(BLOCK, len(faces) - start) for start in turn]
        sizes += [0] * (ranks.count - len(sizes))
        told = partial(_told, progress, 2 * turn[0], ranks.count, 2 * len(faces))
        rows = np.empty((0, 2, 0), np.float32)
        if sizes[ranks.rank]:
            crops = faces[turn[ranks.rank] : turn[ranks.rank] + BLOCK]
            count = len(crops)
            plain = teacher.embed(crops, progress=partial(told, 0))
            mirrored = teacher.embed(crops[:, :, ::-1], progress=partial(told, count))
            rows = np.stack([plain, mirrored], axis=1)
        if ranks.alone:
            yield rows
            continue
        width = int(ranks.totals([float(rows.shape[2]) if ranks.first else 0.0])[0])
        part = torch.from_numpy(rows.reshape(len(rows), 2, width))
        for block in ranks.gather(part, sizes):
            if len(block):
                yield block.numpy()


def _told(
    progress: Progress | None, before: int, times: int, total: int, mine: int, done: int, _: int
) -> None:
    """Report progress, assuming that the other processes have done as much as this one."""
    if progress is not None:
        progress(min(before + (mine + done) * times, total), total)


def _handed_on(found: list[Float32] | None, count: int, ranks: Ranks) -> list[Float32]:
    """The first process's rows, for all processes."""
    if ranks.alone or ranks.first:
        assert found is not None
    if ranks.alone:
        return found or []
    data = [ranks.once(partial(_bytes, found, i)) for i in range(2)]
    if found is not None:
        return found
    return [np.frombuffer(one, np.float32).reshape(count, -1).copy() for one in data]


def _bytes(found: list[Float32] | None, which: int) -> bytes:
    return b"" if found is None else found[which].tobytes()


# --- rows in a file


def _in_a_file(
    teacher: Embeds,
    faces: Any,
    key: str,
    cache: bool,
    spill: Path | None,
    ranks: Ranks,
    progress: Progress | None,
) -> TeacherBank:
    path: Path | None = None
    if ranks.first:
        path = cache_file(key, faces).with_suffix(".npy") if cache or spill is None else spill
    found = _mapped(path, len(faces)) if path is not None and cache else None
    if not ranks.once(lambda: b"" if found is None else b"1"):
        parts = _embedded(teacher, faces, ranks, progress)
        if path is None:
            for _ in parts:
                pass
        else:
            make_folder(path.parent, private=cache)
            with whole(path, private=True) as stream:
                _write(stream, parts, len(faces))
            found = _mapped(path, len(faces))
            if found is None:
                raise EvaluationError(f"{teacher.name}: an embedding of the faces is not finite")
    rows = _shared_map(path, found, len(faces), ranks)
    return TeacherBank(rows[:, 0], rows[:, 1], path)


def _write(stream: BinaryIO, parts: Iterator[Float32], count: int) -> None:
    """Write a .npy file (N,2,D), block by block."""
    begun = False
    for rows in parts:
        if not begun:
            shape = (count, *rows.shape[1:])
            head = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, head)
            begun = True
        stream.write(np.ascontiguousarray(rows, "<f4").data)


def _mapped(path: Path, count: int) -> Float32 | None:
    """The rows (count,2,D) of a file; None if it is missing, damaged or of other faces."""
    try:
        rows: Float32 = np.load(path, mmap_mode="r", allow_pickle=False)
        fits = rows.ndim == 3 and rows.shape[:2] == (count, 2) and rows.dtype == np.float32
        return rows if fits and all(np.isfinite(b).all() for b in blocks(rows)) else None
    except Exception:  # NumPy raises many kinds; none may end a run
        return None


def _shared_map(path: Path | None, found: Float32 | None, count: int, ranks: Ranks) -> Float32:
    """The first process's rows for all: its file, or a temporary copy on machines without that file."""
    if ranks.alone:
        assert found is not None
        return found
    told = ranks.once(lambda: f"{path}\n{_mark(found)}".encode()).decode()
    name, _, mark = told.rpartition("\n")
    if found is None:
        found = _seen(Path(name), count, mark)
    width = int(ranks.totals([found.shape[2] if ranks.first and found is not None else 0.0])[0])
    missing = ranks.totals([float(found is None)])[0] > 0
    if not missing:
        assert found is not None
        return found
    mine = found
    if mine is None:
        with tempfile.TemporaryFile(prefix="efq-", dir=_private()) as file:
            mine = np.memmap(file, np.float32, "w+", shape=(count, 2, width))
    a_time = max(_SENT // (8 * width), 1)
    for start in range(0, count, a_time):
        part = mine[start : start + a_time]
        data = ranks.once(part.tobytes)
        if found is None:
            part[:] = np.frombuffer(data, np.float32).reshape(part.shape)
    return mine


def _private() -> Path:
    folder = cache_dir() / "embeddings"
    make_folder(folder, private=True)
    return folder


def _seen(path: Path, count: int, mark: str) -> Float32 | None:
    """The rows of the file; None if this machine has no file with this mark."""
    try:
        rows: Float32 = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # see _mapped
        return None
    fits = rows.ndim == 3 and rows.shape[:2] == (count, 2) and rows.dtype == np.float32
    return rows if fits and _mark(rows) == mark else None


def _mark(rows: Float32 | None) -> str:
    """A mark that tells banks apart, from their shape, first and last row."""
    return "" if rows is None else f"{rows.shape} {rows[0].tobytes().hex()[:64]} {rows[-1].sum()}"
