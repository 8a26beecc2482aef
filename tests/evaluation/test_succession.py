"""A new model under a live gallery: against loops over pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from efquantface.errors import EvaluationError
from efquantface.evaluation import succession as module
from efquantface.evaluation import tally
from efquantface.evaluation.bootstrap import pairs_interval
from efquantface.evaluation.succession import Succession, compare
from efquantface.evaluation.tally import AGAIN, AS_IS, AS_IS_NEW, MIXED, MIXED_NEW
from people import people

COUNT, EACH = 30, 4


def models(noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Old rows, new rows near them, identities."""
    old, who = people(COUNT, EACH, seed=seed, size=24)
    new = old + noise * np.random.default_rng(seed + 1).normal(size=old.shape)
    return 3 * old, new.astype(np.float32), who


def reference(
    old: np.ndarray, new: np.ndarray, who: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores of all pairs by kind, and which are genuine."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (old, new))
    pairs = list(itertools.combinations(range(len(a)), 2))
    scores = {
        "old": np.array([a[i] @ a[j] for i, j in pairs]),
        "new": np.array([b[i] @ b[j] for i, j in pairs]),
        "mixed": np.array([a[i] @ b[j] for i, j in pairs]),
    }
    return scores, np.array([who[i] == who[j] for i, j in pairs])


@pytest.mark.parametrize("block", [7, 2048])
def test_numbers_are_those_of_loops(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(tally, "_EXAMPLES", 10_000)
    old, new, who = models(0.1)
    found = compare(old, new, who, far=0.01)
    scores, same = reference(old, new, who)
    impostors = int((~same).sum())
    assert (found.images, found.people) == (COUNT * EACH, COUNT)
    assert (found.genuine, found.impostor) == (int(same.sum()), impostors)
    allowed = int(0.01 * impostors)
    for name, cut in {"old": found.threshold, **found.thresholds}.items():
        if name != "both":
            assert int((scores[name][~same] >= cut).sum()) == allowed
    assert found.thresholds["both"] == max(found.thresholds["new"], found.thresholds["mixed"])
    before = scores["old"] >= found.threshold
    assert found.far == allowed / impostors
    assert found.frr == pytest.approx(1 - before[same].mean())
    cuts = {"old": found.threshold, **found.thresholds}
    for case, kind, cut in (
        (AGAIN, "new", "new"),
        (MIXED, "mixed", "both"),
        (MIXED_NEW, "new", "both"),
        (AS_IS, "mixed", "old"),
        (AS_IS_NEW, "new", "old"),
    ):
        after, made = scores[kind] >= cuts[cut], found.case(case)
        assert made is not None
        lost, won = before & ~after & same, ~before & after & same
        assert (made.lost.count, made.won.count) == (lost.sum(), won.sum())
        assert made.rise.share == pytest.approx((lost.sum() - won.sum()) / same.sum())
        assert made.far == after[~same].mean()
        assert made.admitted.count == (~before & after & ~same).sum()
        assert made.refused.count == (before & ~after & ~same).sum()
        pairs = list(itertools.combinations(range(len(who)), 2))
        assert made.people == len({who[pairs[k][0]] for k in np.flatnonzero(lost)})
        if lost.any():
            low, high = made.lost.interval
            assert 0 <= low <= made.lost.share <= high
    examples = [e for e in found.examples if e.case == AGAIN]
    changed = np.flatnonzero(before != (scores["new"] >= cuts["new"]))
    assert {(e.a, e.b) for e in examples} == {pairs[k] for k in changed}
    for move in found.moves:
        mask = same if move.pairs == "genuine" else ~same
        x, y = scores["old"][mask], scores[move.scores][mask]
        assert move.count == mask.sum()
        wanted = [x.mean(), y.mean(), (y - x).mean(), (y - x).std(), np.corrcoef(x, y)[0, 1]]
        values = [move.old, move.mean, move.shift, move.spread, move.correlation]
        np.testing.assert_allclose(values, wanted, atol=2e-5)
        np.testing.assert_allclose([move.low, move.high], np.percentile(y - x, [5, 95]), atol=0.02)


def test_the_same_model_changes_nothing() -> None:
    old, _, who = models(0)
    found = compare(old, old, who, far=0.01)
    for name in ("new", "mixed", "both"):
        assert found.thresholds[name] == pytest.approx(found.threshold, abs=1e-6)
    for case in found.cases:
        assert case.lost.count == case.won.count == case.admitted.count == 0
        # nothing seen of 30 people: up to a tenth may still be
        assert case.rise.interval == (-0.1, 0.1)
        assert case.lost.interval == (0.0, 0.1)


def test_embeddings_of_another_length() -> None:
    old, new, who = models(0.1)
    found = compare(old, new[:, :20], who, far=0.01)
    assert [c.name for c in found.cases] == [AGAIN]
    assert set(found.thresholds) == {"new"}
    assert {m.scores for m in found.moves} == {"new"}


def test_a_deployed_threshold() -> None:
    old, new, who = models(0.1)
    scores, same = reference(old, new, who)
    cut = float(np.sort(scores["old"][~same])[-9]) - 1e-4
    found = compare(old, new, who, threshold=cut)
    assert found.threshold == cut
    accepted = int((scores["old"][~same] >= cut).sum())
    assert found.far == accepted / (~same).sum()
    assert int((scores["new"][~same] >= found.thresholds["new"]).sum()) == accepted
    with pytest.raises(EvaluationError, match="accepts more than 1% of"):
        compare(old, new, who, threshold=-0.5)


def test_nobody_named() -> None:
    old, new, who = models(0.1)
    nobody = np.full(len(who), -1)
    scores, _ = reference(old, new, who)
    cut = float(np.sort(scores["old"])[-50]) - 1e-5
    found: Succession = compare(old, new, nobody, threshold=cut)
    assert not found.labelled
    assert (found.people, found.genuine) == (len(who), 50)
    assert found.impostor == len(scores["old"])
    assert found.frr == 0
    case = found.case(AGAIN)
    assert case is not None
    before = scores["old"] >= cut
    after = scores["new"] >= found.thresholds["new"]
    assert after.sum() == 50
    assert case.lost.count == (before & ~after).sum() > 0
    assert case.won.count == 0
    assert case.lost.share == case.lost.count / 50
    low, high = case.lost.interval
    assert low <= case.lost.share <= high <= 1.5
    with pytest.raises(EvaluationError, match=r"--threshold 0\.4"):
        compare(old, new, nobody, far=0.01)
    with pytest.raises(EvaluationError, match=r"no pair of the sample reaches 0\.999"):
        compare(old, new, nobody, threshold=0.9999)


def test_samples_that_are_too_small() -> None:
    old, new, who = models(0.1)
    with pytest.raises(EvaluationError, match=r"FAR 1e-06 needs 3,000,000 impostor pairs"):
        compare(old, new, who, far=1e-6)
    assert compare(old, new, who).far == pytest.approx(1e-3, rel=0.2)  # the least it supports
    one = np.zeros(len(who), int)
    with pytest.raises(EvaluationError, match="two people"):
        compare(old, new, one, far=0.01)
    alone = np.arange(len(who))
    with pytest.raises(EvaluationError, match="two images of one"):
        compare(old, new, alone, far=0.01)


def test_intervals_are_those_of_people_drawn_again() -> None:
    """Against a resampling that copies images, and pairs them anew."""
    rng = np.random.default_rng(3)
    images = np.array([2, 3, 1, 4, 2, 5, 2, 3])
    who = np.repeat(np.arange(8), images)
    pairs = np.array(list(itertools.combinations(range(len(who)), 2)))
    for genuine in (True, False):
        mine = pairs[(who[pairs[:, 0]] == who[pairs[:, 1]]) == genuine]
        values = (rng.random(len(mine)) < 0.3).astype(float)
        value = {tuple(p): v for p, v in zip(mine.tolist(), values, strict=True)}
        shares = []
        for _ in range(2000):
            drawn = rng.integers(0, 8, 8)
            total = count = 0.0
            for p, q in itertools.combinations_with_replacement(range(8), 2):
                if (p == q) != genuine:
                    continue
                weight = (drawn == p).sum() * (1 if genuine else (drawn == q).sum())
                if genuine:
                    inside = list(itertools.combinations(np.flatnonzero(who == p), 2))
                else:
                    a, b = np.flatnonzero(who == p), np.flatnonzero(who == q)
                    inside = list(itertools.product(a, b))
                total += weight * sum(value[tuple(sorted(map(int, x)))] for x in inside)
                count += weight * len(inside)
            shares.append(total / max(count, 1))
        keep = values > 0
        first, second = who[mine[keep, 0]], who[mine[keep, 1]]
        found = pairs_interval(values[keep], first, second, images)
        np.testing.assert_allclose(found, np.percentile(shares, [2.5, 97.5]), atol=0.04)
