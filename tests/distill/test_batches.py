"""Batches of identities: exact epochs, and identities of near-duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from efquantface.distill.batches import identity_order, pseudo_identities


@pytest.mark.parametrize("sizes", [[4] * 16, [1] * 30 + [2] * 10, [300, 1, 1, 2, 3], [1]])
def test_identity_order_is_an_exact_epoch(sizes: list[int]) -> None:
    identities = np.repeat(np.arange(len(sizes)), sizes)
    identities = np.random.default_rng(9).permutation(identities)
    order = identity_order(identities, 4, np.random.default_rng(1))
    assert sorted(order.tolist()) == list(range(len(identities)))
    again = identity_order(identities, 4, np.random.default_rng(1))
    np.testing.assert_array_equal(order, again)
    # every person's images stand in groups of four, and one smaller rest
    runs: dict[int, list[int]] = {}
    labels = identities[order]
    for k in range(len(labels)):
        if k == 0 or labels[k] != labels[k - 1]:
            runs.setdefault(int(labels[k]), []).append(0)
        runs[int(labels[k])][-1] += 1
    if len(sizes) == 16:
        assert all(r == [4] for r in runs.values())
    for person, size in enumerate(sizes):
        assert sum(runs[person]) == size


def test_unlabelled_images_get_identities_of_near_duplicates() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32)
    rows[7] = 2 * rows[3]
    rows[20] = rows[7] + 0.01
    found = pseudo_identities(rows)
    assert found[3] == found[7] == found[20]
    assert len(np.unique(found)) == 48


def test_unlabelled_images_of_a_teacher_that_finds_strangers_alike() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 64)).astype(np.float32)
    rows[7] = rows[3] + 0.01
    rows += 4 * rng.normal(size=64).astype(np.float32)  # cosines of strangers: 0.94
    found = pseudo_identities(rows)
    assert found[3] == found[7]
    assert len(np.unique(found)) == 399
