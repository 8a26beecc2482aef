"""All pairs of a set of faces, in blocks: millions of impostor scores in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from efquantface.evaluation.metrics import Scores
from efquantface.interfaces import Progress
from efquantface.rows import unit

BINS = 4000  # of the histogram over [-1, 1]
_BLOCK = 2048
_KEEP_FAR = 1e-2  # the largest FAR for which exact impostor scores are kept


@dataclass(frozen=True)
class AllPairs:
    """Scores of all pairs of N embeddings.

    Attributes:
        genuine: all genuine scores, in the order of (i, j) with i < j.
        top_impostors: the largest impostor scores, enough for every FAR up to ``kept_far``.
        impostors: number of all impostor pairs.
        kept_far: the largest FAR for which ``top_impostors`` gives exact thresholds.
        genuine_identity: (K,) identity of each genuine pair, for the bootstrap.
        impostor_histogram: counts over [-1, 1] in ``BINS`` bins.
    """

    genuine: Scores
    top_impostors: Scores
    impostors: int
    kept_far: float
    genuine_identity: npt.NDArray[np.int64]
    impostor_histogram: npt.NDArray[np.int64]


def score_all_pairs(
    embeddings: npt.NDArray[np.float32],
    identities: npt.NDArray[np.int64],
    progress: Progress | None = None,
    probes: npt.NDArray[np.float32] | None = None,
    kept_far: float = _KEEP_FAR,
) -> AllPairs:
    """Cosines of every pair i < j.

    Memory holds one block of 2048 x 2048 scores, the genuine scores, and up to four times the share
    ``kept_far`` of the impostor scores.

    Args:
        embeddings: float32 (N,D), any length.
        identities: int64 (N,); pairs of one number are genuine. With -1 for all, no pair is.
        progress: called with (blocks done, blocks).
        probes: (N,D), used for side j (a student's, against a teacher's gallery).
        kept_far: the largest FAR for which exact impostor scores are kept; memory grows with it.

    Raises:
        EvaluationError: an embedding is not finite or has length zero.
    """
    gallery = unit(embeddings)
    second = gallery if probes is None else unit(probes)
    labelled = bool((identities >= 0).all())
    count = len(gallery)
    _, sizes = np.unique(identities, return_counts=True)
    genuine_total = int((sizes * (sizes - 1) // 2).sum()) if labelled else 0
    impostor_total = count * (count - 1) // 2 - genuine_total
    top = _TopScores(int(np.floor(kept_far * impostor_total)) + 1)
    histogram = np.zeros(BINS, np.int64)
    genuine, owners = [], []
    done, blocks = 0, range(0, count, _BLOCK)
    total = len(blocks) * (len(blocks) + 1) // 2
    for i in blocks:
        for j in range(i, count, _BLOCK):
            scores = gallery[i : i + _BLOCK] @ second[j : j + _BLOCK].T
            valid = np.ones(scores.shape, bool)
            if i == j:
                valid = np.triu(valid, 1)
            if labelled:
                same = identities[i : i + _BLOCK, None] == identities[None, j : j + _BLOCK]
                same &= valid
                genuine.append(scores[same])
                owners.append(identities[i : i + _BLOCK][np.nonzero(same)[0]])
                valid &= ~same
            values = scores[valid]
            bins = np.clip(((values + 1) * (BINS / 2)).astype(np.int32), 0, BINS - 1)
            histogram += np.bincount(bins, minlength=BINS)
            top.add(values)
            done += 1
            if progress:
                progress(done, total)
    return AllPairs(
        np.concatenate(genuine) if genuine else np.empty(0, np.float32),
        top.finish(),
        impostor_total,
        kept_far,
        np.concatenate(owners) if owners else np.empty(0, np.int64),
        histogram,
    )


class _TopScores:
    """The ``size`` largest of many scores."""

    def __init__(self, size: int) -> None:
        self.size, self.cut = size, -np.inf
        self.parts: list[Scores] = []
        self.held = 0

    def add(self, scores: Scores) -> None:
        above = scores[scores > self.cut] if self.cut > -np.inf else scores
        self.parts.append(above)
        self.held += len(above)
        if self.held > 4 * self.size:
            self.parts = [self.finish()]
            self.held = len(self.parts[0])
            if self.held == self.size:
                # more scores equal to the smallest kept one change nothing
                self.cut = float(self.parts[0].min())

    def finish(self) -> Scores:
        merged = np.concatenate(self.parts) if self.parts else np.empty(0, np.float32)
        if len(merged) <= self.size:
            return merged
        return np.partition(merged, len(merged) - self.size)[len(merged) - self.size :]
