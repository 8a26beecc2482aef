"""Embeddings of earlier runs: private files in the user's cache, found by who embedded what."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface.assets import cache_dir
from efquantface.embedding.embedder import Embedder
from efquantface.interfaces import Progress

Float32 = npt.NDArray[np.float32]


def cache_file(key: str, faces: npt.NDArray[np.uint8]) -> Path:
    """Where embeddings of ``faces`` (N,H,W,3) by the network of this key are, or would be."""
    digest = hashlib.sha256(key.encode())
    digest.update(repr(faces.shape).encode())
    digest.update(np.ascontiguousarray(faces).data)
    return cache_dir() / "embeddings" / f"{digest.hexdigest()[:32]}.npz"


def read_cached(path: Path, names: tuple[str, ...], count: int) -> list[Float32] | None:
    """The arrays (``count``,D) of a file; None where it is missing, damaged or of other faces."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = [stored[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError):
        return None
    fits = len({a.shape for a in found}) == 1 and len(found[0]) == count
    return found if fits and all(np.isfinite(a).all() for a in found) else None


def write_cached(path: Path, **arrays: Float32) -> None:
    """Write arrays, readable by their owner only (mode 0600): embeddings are biometric data."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".partial")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@dataclass
class EmbeddingCache:
    """An embedder that looks into the cache first; a teacher meets the same sets run after run.

    Attributes:
        embedder: what embeds.
        key: identifies the network and what runs it.
    """

    embedder: Embedder
    key: str

    def __post_init__(self) -> None:
        self.name = self.embedder.name

    def embed(
        self,
        faces: npt.NDArray[np.uint8],
        *,
        flip: bool = False,
        progress: Progress | None = None,
    ) -> Float32:
        """As :meth:`Embedder.embed`, for crops (N,H,W,3)."""
        path = cache_file(f"{self.key} flip {flip}", faces)
        found = read_cached(path, ("rows",), len(faces))
        if found is not None:
            return found[0]
        rows = self.embedder.embed(faces, flip=flip, progress=progress)
        write_cached(path, rows=rows)
        return rows
