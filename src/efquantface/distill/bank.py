"""The teacher bank: its embeddings of every crop and mirror image, computed once, cached privately."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from efquantface.embedding.cache import kept_file, read_kept, write_kept

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

        The cache is private (:mod:`efquantface.embedding.cache`).

        Args:
            teacher: what embeds.
            faces: uint8 RGB crops (N,H,W,3).
            key: identifies the teacher (a digest of its weights).
            cache: whether to keep the result on disk.
        """
        path = None
        if cache:
            path = kept_file(key, faces)
            found = read_kept(path, ("plain", "mirrored"), len(faces))
            if found is not None:
                return cls(found[0], found[1], path)
        total = 2 * len(faces)
        report = progress or (lambda done, of: None)
        plain = teacher.embed(faces, progress=lambda done, _: report(done, total))
        mirrored = teacher.embed(
            faces[:, :, ::-1], progress=lambda done, _: report(len(faces) + done, total)
        )
        if path is not None:
            write_kept(path, plain=plain, mirrored=mirrored)
        return cls(plain, mirrored, path)
