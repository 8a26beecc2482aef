"""Finds shared people, wrong labels and duplicates in a set of faces by a teacher's embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from efquantface.data.strangers import centred

Rows = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
DUPLICATE = 0.985  # cosine of two files of one picture
_COMPARISONS = 1_000_000  # of strangers' images, of which one may count as alike
_DEVIATION = 1.4826  # a normal distribution's deviation, in median deviations
_STANDS_OUT = 2.0  # deviations between the best match and the second one
_BLOCK = 1024  # rows
_FEWEST = 3  # images that make a second person in a folder


@dataclass
class Findings:
    """Indices of images, with the reason each is listed for.

    Attributes:
        threshold: the least cosine of images of one identity (of centred rows, where strangers are
            alike).
        split: pairs of identities that are one person.
        merged: identities that hold two people.
        outliers: images that do not look like the others of their identity.
        duplicates: (image, the one that is kept).
        shared: (identity, identity of the evaluation set) that are one person.
    """

    threshold: float
    split: list[tuple[int, int]] = field(default_factory=list)
    merged: list[int] = field(default_factory=list)
    outliers: list[int] = field(default_factory=list)
    duplicates: list[tuple[int, int]] = field(default_factory=list)
    shared: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Impostors:
    """The spread of impostor cosines: their median, and 1.48 times their median deviation.

    Both are of random pairs, so people who are in two folders hardly move them.
    """

    middle: float
    spread: float

    @classmethod
    def of(cls, rows: Rows, identities: Numbers, seed: int = 0) -> Impostors:
        """Measure on rows (N,D) of length 1; for a single person, take what random directions have."""
        rng = np.random.default_rng([seed, 15])
        a, b = rng.integers(0, len(rows), (2, 200_000))
        different = (identities[a] != identities[b]) & (a != b)
        if not different.any():
            return cls(0.0, rows.shape[1] ** -0.5)
        scores = np.einsum("ij,ij->i", rows[a[different]], rows[b[different]])
        return cls(*_spread(scores))

    def threshold(self, comparisons: int) -> float:
        """The cosine that one of ``comparisons`` impostor pairs exceeds, if cosines are normal."""
        deviations = -NormalDist().inv_cdf(1 / max(comparisons, 2))
        return min(self.middle + deviations * self.spread, 0.95)


def _spread(scores: Rows) -> tuple[float, float]:
    """Median, and the deviation of a normal distribution with the same median deviation."""
    middle = float(np.median(scores))
    return middle, _DEVIATION * float(np.median(np.abs(scores - middle)))


def mean_rows(rows: Rows, identities: Numbers, count: int) -> Rows:
    """(count,D) mean of each identity's rows; a product of two is the mean cosine across them."""
    sums = np.zeros((count, rows.shape[1]), np.float32)
    np.add.at(sums, identities, rows)
    sizes = np.bincount(identities, minlength=count)
    return np.asarray(sums / np.maximum(sizes, 1)[:, None], np.float32)


def shared_people(
    first: Rows,
    first_ids: Numbers,
    second: Rows,
    second_ids: Numbers,
    impostors: Impostors,
    *,
    within: bool = False,
) -> list[tuple[int, int]]:
    """Pairs of identities of two sets (or within one) that are one person.

    The mean cosine across their images has to exceed the threshold that one of all impostor comparisons
    would exceed. The best match also has to stand out: ``_STANDS_OUT`` deviations above the second one,
    or as far above the threshold. The reason: tails are heavier than normal, and one person may have
    many lookalikes.

    Args:
        first, second: embeddings (N,D) of length 1.
        first_ids, second_ids: identity numbers (N,) from 0 on.
        impostors: how cosines of different people are spread.
        within: both sets are one; an identity is not compared with itself.
    """
    a = mean_rows(first, first_ids, int(first_ids.max()) + 1)
    b = mean_rows(second, second_ids, int(second_ids.max()) + 1)
    threshold = impostors.threshold(len(a) * len(b))
    margin = _STANDS_OUT * impostors.spread
    found = []
    for start in range(0, len(a), _BLOCK):
        scores = a[start : start + _BLOCK] @ b.T
        if within:
            own = np.arange(len(scores))
            scores[own, start + own] = -np.inf
        best = scores.argmax(axis=1)
        for i, j in enumerate(best):
            top = float(scores[i, j])
            rest = np.delete(scores[i], j)
            gap = top - float(rest.max()) if len(rest) else np.inf
            if top >= threshold and (gap >= margin or top >= threshold + margin):
                found.append((start + i, int(j)))
    return found


def check_people(rows: Rows, identities: Numbers, seed: int = 0) -> Findings:
    """Split and merged identities, outliers and near-duplicates of a set with identities.

    Args:
        rows: the teacher's embeddings (N,D), of length 1.
    """
    if len(np.unique(identities)) > 1:
        (rows,) = centred(rows)
    impostors = Impostors.of(rows, identities, seed)
    order = np.argsort(identities, kind="stable")
    people = np.split(order, np.flatnonzero(np.diff(identities[order])) + 1)
    among = [rows[members] @ rows[members].T for members in people]
    found = Findings(_between(impostors, _typical(among)))
    pairs = shared_people(rows, identities, rows, identities, impostors, within=True)
    found.split = sorted({(min(p), max(p)) for p in pairs})
    for members, scores in zip(people, among, strict=True):
        _duplicates(members, scores, found)
        if len(members) >= _FEWEST and _strangers(members, scores, found):
            found.merged.append(int(identities[members[0]]))
    return found


def _typical(among: list[Rows]) -> Rows:
    """Each image's median cosine to the others of its identity, where there are two or more others.

    Args:
        among: the cosines (M,M) of every identity's images.
    """
    found = []
    for scores in among:
        if len(scores) >= _FEWEST:
            others = scores[~np.eye(len(scores), dtype=bool)].reshape(len(scores), -1)
            found.append(np.median(others, axis=1))
    return np.concatenate(found) if found else np.empty(0, np.float32)


def _between(impostors: Impostors, typical: Rows) -> float:
    """The cosine that is as many deviations above impostor pairs as below genuine ones.

    It is at most the cosine that one impostor pair in a million exceeds. A higher one would list hard
    images of the right person.
    """
    strict = impostors.threshold(_COMPARISONS)
    if not len(typical):
        return strict
    middle, spread = _spread(typical)
    both = impostors.spread + spread
    if not both or middle <= impostors.middle:
        return strict
    return min((impostors.middle * spread + middle * impostors.spread) / both, strict)


def _duplicates(members: Numbers, scores: Rows, found: Findings) -> None:
    """List every image that nearly equals an earlier one."""
    for j in range(1, len(members)):
        i = int(np.argmax(scores[j, :j]))
        if scores[j, i] >= DUPLICATE:
            found.duplicates.append((int(members[j]), int(members[i])))


def _strangers(members: Numbers, scores: Rows, found: Findings) -> bool:
    """List images whose median cosine to the main person of their identity stays below the threshold.

    The main person is all images like the one that most others are like. Returns whether the other
    images are many enough, and alike enough, to be a second person.
    """
    alike = scores >= found.threshold
    main = np.flatnonzero(alike[int(np.argmax(alike.sum(axis=1)))])
    typical = np.median(scores[:, main], axis=1)
    strange = np.flatnonzero(typical < found.threshold)
    found.outliers += [int(members[i]) for i in strange]
    if len(strange) < _FEWEST:
        return False
    among = scores[np.ix_(strange, strange)][np.triu_indices(len(strange), 1)]
    return bool(np.median(among) >= found.threshold)
