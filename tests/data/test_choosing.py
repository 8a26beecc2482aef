"""Which images are chosen: people in turns, and centres that leave nothing far away."""

from __future__ import annotations

import numpy as np
import pytest

from efquantface.data.choosing import choose
from efquantface.errors import DataError
from people import people


def test_identities_take_turns() -> None:
    identities = np.repeat(np.arange(10), [1, 1, 1, 1, 1, 1, 1, 1, 50, 2])
    chosen = choose(identities, 10, "identities", seed=1)
    assert sorted(identities[chosen].tolist()) == list(range(10))
    twelve = choose(identities, 12, "identities", seed=1)
    assert np.bincount(identities[twelve]).tolist() == [1] * 8 + [2, 2]
    np.testing.assert_array_equal(chosen, choose(identities, 10, "identities", seed=1))
    assert len(choose(np.full(20, -1), 7, "identities")) == 7
    assert len(set(choose(identities, 30, "random", seed=2).tolist())) == 30


def test_coverage_leaves_nothing_far_away() -> None:
    """Ten tight clusters: ten centres take one each, as random ones would not."""
    rows, cluster = people(10, 30)
    chosen = choose(cluster, 10, "coverage", embeddings=rows)
    assert sorted(cluster[chosen].tolist()) == list(range(10))
    farthest = 1 - (rows @ rows[chosen].T).max(axis=1).min()
    at_random = 1 - (rows @ rows[choose(cluster, 10, "random")].T).max(axis=1).min()
    assert farthest < at_random


@pytest.mark.parametrize(
    ("size", "by", "message"),
    [(5, "luck", "choose from"), (0, "random", "--size 0"), (99, "random", "there are 40"),
     (5, "coverage", "embeddings")],
)  # fmt: skip
def test_choices_that_cannot_be_made(size: int, by: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose(np.arange(40), size, by)
