"""The teacher bank: its embeddings of every crop and mirror image, computed once, cached privately."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from efquantface.assets import cache_dir

Progress = Callable[[int, int], None]


class _Embeds(Protocol):
    """The part of an Embedder that the bank needs."""

    def embed(
        self, faces: npt.NDArray[np.uint8], *, progress: Progress | None = None
    ) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class TeacherBank:
    """Teacher embeddings (N,D) of the crops as they are and of their mirror images."""

    plain: npt.NDArray[np.float32]
    mirrored: npt.NDArray[np.float32]
    path: Path | None

    @classmethod
    def build(
        cls,
        teacher: _Embeds,
        faces: npt.NDArray[np.uint8],
        *,
        key: str,
        cache: bool = True,
        progress: Progress | None = None,
    ) -> TeacherBank:
        """Compute or read the bank.

        The cache lies in the user's cache directory, readable by its owner only (mode 0600):
        embeddings are biometric data.

        Args:
            teacher: what embeds.
            faces: uint8 RGB crops (N,H,W,3).
            key: identifies the teacher (a digest of its weights).
            cache: whether to keep the result on disk.
        """
        path = None
        if cache:
            digest = hashlib.sha256(key.encode())
            digest.update(repr(faces.shape).encode())
            digest.update(np.ascontiguousarray(faces).data)
            path = cache_dir() / "embeddings" / f"{digest.hexdigest()[:32]}.npz"
            found = _read(path, len(faces))
            if found is not None:
                return cls(*found, path)
        total = 2 * len(faces)
        report = progress or (lambda done, of: None)
        plain = teacher.embed(faces, progress=lambda done, _: report(done, total))
        mirrored = teacher.embed(
            faces[:, :, ::-1], progress=lambda done, _: report(len(faces) + done, total)
        )
        if path is not None:
            _write(path, plain, mirrored)
        return cls(plain, mirrored, path)


def _read(path: Path, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            plain, mirrored = stored["plain"], stored["mirrored"]
    except (OSError, ValueError, KeyError, EOFError):
        return None
    fits = plain.shape == mirrored.shape and len(plain) == count
    return (plain, mirrored) if fits and np.isfinite(plain).all() else None


def _write(path: Path, plain: npt.NDArray[np.float32], mirrored: npt.NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".partial")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, plain=plain, mirrored=mirrored)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
