"""The embedding cache: private files in the user's cache, found by network and crops."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface.assets import cache_dir
from efquantface.console import Console
from efquantface.data.views import content_hash
from efquantface.embedding.embedder import Embedder
from efquantface.errors import WriteError
from efquantface.files import make_folder, whole
from efquantface.interfaces import Progress

_refused: set[Path] = set()  # caches that cannot be written; the user was warned

Float32 = npt.NDArray[np.float32]


def cache_file(key: str, faces: npt.NDArray[np.uint8]) -> Path:
    """The path of embeddings of ``faces`` (N,H,W,3) by the network of ``key``; it may not exist."""
    digest = hashlib.sha256(key.encode())
    digest.update(repr(faces.shape).encode())
    digest.update(content_hash(faces).digest())
    return cache_dir() / "embeddings" / f"{digest.hexdigest()[:32]}.npz"


def read_cached(path: Path, names: tuple[str, ...], count: int) -> list[Float32] | None:
    """The arrays float32 (``count``,D) of a file; None where it is missing, damaged or does not fit."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = [np.asarray(stored[name]) for name in names]
    except Exception:  # zipfile and NumPy raise many kinds; none may end a run
        return None
    shape = found[0].shape
    fits = (
        len(shape) == 2
        and shape[0] == count
        and all(a.shape == shape and a.dtype == np.float32 for a in found)
    )
    return found if fits and all(np.isfinite(a).all() for a in found) else None


def write_cached(path: Path, **arrays: Float32) -> None:
    """Write arrays, readable by their owner only (mode 0600): embeddings are biometric data.

    A cache that cannot be written causes one warning and no error.
    """
    try:
        make_folder(path.parent, private=True)
        with whole(path, private=True, shared=True) as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
    except WriteError as error:
        if path.parent not in _refused:
            _refused.add(path.parent)
            Console().warn(f"embeddings are not cached: {error}; EFQ_CACHE names another place")


@dataclass
class EmbeddingCache:
    """An embedder that looks into the cache first; runs of one teacher often embed the same sets.

    Attributes:
        embedder: embeds what the cache does not hold.
        key: identifies the network and its runtime.
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
        """As :meth:`Embedder.embed`, for crops uint8 RGB (N,H,W,3): embeddings float32 (N,D)."""
        path = cache_file(f"{self.key} flip {flip}", faces)
        found = read_cached(path, ("rows",), len(faces))
        if found is not None:
            return found[0]
        rows = self.embedder.embed(faces, flip=flip, progress=progress)
        write_cached(path, rows=rows)
        return rows
