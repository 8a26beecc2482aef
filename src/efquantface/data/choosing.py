"""Chooses few images out of many."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.data.ways import WAYS
from efquantface.errors import DataError

PRESAMPLE = 30_000  # images that coverage looks at, at most


def choose(
    identities: npt.NDArray[np.int64],
    size: int,
    by: str,
    seed: int = 0,
    embeddings: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.int64]:
    """Choose ``size`` images; returns their indices int64 (size,), ascending, the same for one seed.

    Args:
        identities: (N,) numbers, -1 where unknown.
        size: how many, from 1 to N.
        by: ``random``; ``identities``, one image of each person before a second of any; ``coverage``,
            greedy k-centre: each next image is the one least like any chosen one
            (Gonzalez 1985).
        seed: of the choice.
        embeddings: the teacher's, float32 (N,D) of length 1; ``coverage`` needs them.

    Raises:
        DataError: an unknown way, or more images wanted than there are.
    """
    count = len(identities)
    if by not in WAYS:
        raise DataError(f"--by {by!r}: choose from {', '.join(WAYS)}")
    if not 0 < size <= count:
        raise DataError(f"--size {size}: there are {count:,} images")
    rng = np.random.default_rng([seed, 13])
    order = rng.permutation(count)
    if by == "random":
        return np.sort(order[:size])
    if by == "identities":
        return np.sort(order[turns(identities[order], rng)[:size]])
    if embeddings is None:
        raise DataError("choosing by coverage needs a teacher's embeddings")
    return np.sort(_k_centre(embeddings, size, int(order[0])))


def presample(count: int, size: int, seed: int) -> npt.NDArray[np.int64]:
    """The images that ``coverage`` chooses from: all, or a random part of very many."""
    if count <= PRESAMPLE:
        return np.arange(count)
    rng = np.random.default_rng([seed, 14])
    return np.sort(rng.permutation(count)[: max(PRESAMPLE, size)])


def turns(
    identities: npt.NDArray[np.int64], rng: np.random.Generator | None = None
) -> npt.NDArray[np.int64]:
    """The order of images (N,) in which people take turns, one image each.

    A person's images keep their order. With ``rng`` people are in random order in each turn, otherwise
    in the order of their numbers.
    """
    if (identities < 0).any():
        return np.arange(len(identities))
    sorted_order = np.argsort(identities, kind="stable")
    people = identities[sorted_order]
    starts = np.flatnonzero(np.concatenate([[True], people[1:] != people[:-1]]))
    sizes = np.diff(np.append(starts, len(people)))
    turn = np.empty(len(people), np.int64)
    turn[sorted_order] = np.arange(len(people)) - np.repeat(starts, sizes)
    return np.lexsort((identities if rng is None else rng.random(len(people)), turn))


def _k_centre(rows: npt.NDArray[np.float32], size: int, first: int) -> npt.NDArray[np.int64]:
    chosen = np.empty(size, np.int64)
    chosen[0] = first
    nearest = rows @ rows[first]
    for k in range(1, size):
        nearest[chosen[k - 1]] = np.inf
        chosen[k] = int(np.argmin(nearest))
        np.maximum(nearest, rows @ rows[chosen[k]], out=nearest)
    return chosen
