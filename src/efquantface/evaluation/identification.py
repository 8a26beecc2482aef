"""Identification (1:N): probes are searched in a gallery; some of their people are not enrolled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError
from efquantface.rows import unit

FPIRS = (0.01, 0.1)
_BLOCK = 4096


@dataclass(frozen=True)
class Search:
    """The result of searching every probe.

    Attributes:
        mate: float32 (P,) best score of the probe's own identity in the gallery; -inf where not
        enrolled. other: float32 (P,) best score of any other identity. rank: int64 (P,) rank of the own
        identity (1 is best), 0 where not enrolled.
    """

    mate: npt.NDArray[np.float32]
    other: npt.NDArray[np.float32]
    rank: npt.NDArray[np.int64]

    @property
    def enrolled(self) -> npt.NDArray[np.bool_]:
        """(P,) whether the probe's identity is in the gallery."""
        return self.rank > 0

    def rank_rate(self, rank: int) -> float:
        """Share of mated probes whose identity is among the first ``rank``."""
        return float((self.rank[self.enrolled] <= rank).mean())

    def threshold(self, fpir: float) -> float:
        """The smallest threshold at which at most ``fpir`` of non-mated probes find anyone."""
        top = np.sort(self.other[~self.enrolled])[::-1]
        allowed = int(np.floor(fpir * len(top) + 1e-9))
        edge = top[min(allowed, len(top) - 1)]
        return float(np.nextafter(edge, np.float32(np.inf)))

    def tpir(self, threshold: float) -> float:
        """Share of mated probes whose own identity scores at or above a threshold (at any rank)."""
        return float((self.mate[self.enrolled] >= threshold).mean())


def search(
    gallery: npt.NDArray[np.float32],
    gallery_subjects: npt.NDArray[np.int64],
    probes: npt.NDArray[np.float32],
    probe_subjects: npt.NDArray[np.int64],
) -> Search:
    """Search every probe in a gallery, by cosine; an identity's best template counts.

    Args:
        gallery: float32 (G,D), any length.
        gallery_subjects: (G,) identity numbers.
        probes: float32 (P,D), any length.
        probe_subjects: (P,) identity numbers.

    Raises:
        EvaluationError: an embedding is not finite or has length zero, or no probe's identity is
        enrolled.
    """
    subjects, column = np.unique(gallery_subjects, return_inverse=True)
    order = np.argsort(column, kind="stable")
    starts = np.searchsorted(column[order], np.arange(len(subjects)))
    rows = unit(gallery, "gallery")[order]
    vectors = unit(probes, "probes")
    position = np.searchsorted(subjects, probe_subjects)
    position[position == len(subjects)] = 0
    enrolled = subjects[position] == probe_subjects
    if not enrolled.any():
        raise EvaluationError("no probe's identity is in the gallery")
    mate = np.full(len(vectors), -np.inf, np.float32)
    other = np.empty(len(vectors), np.float32)
    rank = np.zeros(len(vectors), np.int64)
    for start in range(0, len(vectors), _BLOCK):
        where = np.arange(start, min(start + _BLOCK, len(vectors)))
        best = np.maximum.reduceat(vectors[where] @ rows.T, starts, axis=1)
        mated = where[enrolled[where]]
        local, own = mated - start, position[mated]
        mate[mated] = best[local, own]
        rank[mated] = 1 + (best[local] > mate[mated, None]).sum(axis=1)
        best[local, own] = -np.inf
        other[where] = best.max(axis=1)
    return Search(mate, other, rank)
