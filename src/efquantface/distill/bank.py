"""The teacher bank: its embeddings of every crop and mirror image, computed once, cached privately."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface.embedding.cache import cache_file, read_cached, write_cached
from efquantface.interfaces import Embeds, Progress


@dataclass(frozen=True)
class TeacherBank:
    """Teacher embeddings (N,D) of the crops as they are and of their mirror images."""

    plain: npt.NDArray[np.float32]
    mirrored: npt.NDArray[np.float32]
    path: Path | None

    @classmethod
    def build(
        cls,
        teacher: Embeds,
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
            path = cache_file(key, faces)
            found = read_cached(path, ("plain", "mirrored"), len(faces))
            if found is not None:
                return cls(found[0], found[1], path)
        total = 2 * len(faces)
        report = progress or (lambda done, of: None)
        plain = teacher.embed(faces, progress=lambda done, _: report(done, total))
        mirrored = teacher.embed(
            faces[:, :, ::-1], progress=lambda done, _: report(len(faces) + done, total)
        )
        if path is not None:
            write_cached(path, plain=plain, mirrored=mirrored)
        return cls(plain, mirrored, path)
