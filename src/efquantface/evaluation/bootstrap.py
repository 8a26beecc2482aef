"""Percentile bootstrap intervals (95 %; Efron 1979), paired between teacher and student."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.evaluation.metrics import Scores, tar_at_far

REPEATS = 1000
Interval = tuple[float, float]


def interval(values: npt.NDArray[np.float64]) -> Interval:
    """The central 95 % of bootstrap values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_interval(
    values: npt.NDArray[np.float64], seed: int = 0, groups: npt.NDArray[np.int64] | None = None
) -> Interval:
    """Interval of the mean of ``values`` (K,), resampled one by one or by whole groups.

    Give ``groups`` (K,), for example identities, where values of one group depend on each other.
    """
    rng = np.random.default_rng([seed, 20])
    if groups is None:
        count = len(values)
        if set(np.unique(values)) <= {-1.0, 0.0, 1.0}:  # decisions: resample their counts
            parts = np.array([(values == v).mean() for v in (-1.0, 0.0, 1.0)])
            drawn = rng.multinomial(count, parts, REPEATS)
            return interval((drawn[:, 2] - drawn[:, 0]) / count)
        return interval(
            np.array([values[rng.integers(0, count, count)].mean() for _ in range(REPEATS)])
        )
    _, inverse = np.unique(groups, return_inverse=True)
    sums = np.bincount(inverse, weights=values)
    sizes = np.bincount(inverse)
    picks = rng.integers(0, len(sums), (REPEATS, len(sums)))
    return interval(sums[picks].sum(axis=1) / sizes[picks].sum(axis=1))


def tar_intervals(
    scores: dict[str, tuple[Scores, Scores]], far: float, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of TAR@FAR of several models on the same pairs, and of differences to the first.

    Genuine and impostor pairs are resampled, with the same draws for every model. So the threshold
    varies with the impostor pairs drawn.

    Args:
        scores: genuine and impostor scores by model name; the first is the teacher.
        far: 0 < far < 1.
        seed: of the draws.

    Returns:
        The interval of each TAR by model name, and of each difference by ``NAME - FIRST``.
    """
    rng = np.random.default_rng([seed, 21])
    names = list(scores)
    genuine_count, impostor_count = (len(s) for s in scores[names[0]])
    tars = np.empty((REPEATS, len(names)))
    for repeat in range(REPEATS):
        g = rng.integers(0, genuine_count, genuine_count)
        i = rng.integers(0, impostor_count, impostor_count)
        for column, name in enumerate(names):
            genuine, impostor = scores[name]
            tars[repeat, column] = tar_at_far(genuine[g], impostor[i], far).tar
    found = {name: interval(tars[:, column]) for column, name in enumerate(names)}
    for column, name in enumerate(names[1:], start=1):
        found[f"{name} - {names[0]}"] = interval(tars[:, column] - tars[:, 0])
    return found


def pairs_interval(
    values: npt.NDArray[np.float64],
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    images: npt.NDArray[np.int64],
    seed: int = 0,
) -> Interval:
    """Interval of the mean of pairs' values over all genuine or all impostor pairs, people resampled.

    A person drawn twice counts as two different people: their genuine pairs count twice, and no pair
    between the two is formed.

    Args:
        values: (K,) of some pairs; all other pairs have the value 0.
        first, second: (K,) people of each pair, from 0 on; equal in all pairs (genuine) or in none.
        images: (P,) number of images of each person, which gives the number of all pairs.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 22])
    people = len(images)
    genuine = not len(first) or bool(first[0] == second[0])
    # pairs of the same two people have the same weight
    codes, inverse = np.unique(first * people + second, return_inverse=True)
    sums = np.bincount(inverse, weights=values, minlength=len(codes))
    a, b = codes // max(people, 1), codes % max(people, 1)
    within = images * (images - 1) / 2
    shares = np.empty(REPEATS)
    for repeat in range(REPEATS):
        drawn = np.bincount(rng.integers(0, people, people), minlength=people)
        if genuine:
            total, weight = float(drawn @ within), drawn[a]
        else:
            held = drawn * images
            total, weight = (float(held.sum()) ** 2 - float(held @ held)) / 2, drawn[a] * drawn[b]
        shares[repeat] = float(sums @ weight) / max(total, 1.0)
    return interval(shares)
