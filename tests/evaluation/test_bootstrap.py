"""Intervals cover what they should, and pairing narrows them."""

from __future__ import annotations

import numpy as np

from efquantface.evaluation.bootstrap import mean_interval, tar_intervals

RNG = np.random.default_rng(0)
GENUINE = RNG.normal(0.6, 0.2, 400).astype(np.float32)
IMPOSTOR = RNG.normal(0.1, 0.2, 3000).astype(np.float32)


def test_intervals_cover() -> None:
    hits = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        low, high = mean_interval((rng.random(300) < 0.9).astype(float), seed)
        hits += low <= 0.9 <= high
    assert hits >= 88
    groups = np.repeat(np.arange(30), 10)
    same = np.repeat((np.arange(30) % 3 > 0).astype(float), 10)
    wide = mean_interval(same, groups=groups)
    narrow = mean_interval(same)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_paired_interval_is_narrower_than_two_alone() -> None:
    student = GENUINE - RNG.normal(0.01, 0.01, 400).astype(np.float32)
    found = tar_intervals({"teacher": (GENUINE, IMPOSTOR), "student": (student, IMPOSTOR)}, 0.01)
    paired, alone = found["student - teacher"], found["teacher"]
    assert paired[1] - paired[0] < 0.8 * (alone[1] - alone[0])
    assert paired[0] < 0
