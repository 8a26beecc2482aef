"""Counts over pairs of faces scored by an old and a new model: how scores move, changed decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.evaluation.bootstrap import Interval, pairs_interval
from efquantface.evaluation.metrics import Scores

KINDS = ("genuine", "impostor")
_BINS = 4000  # of differences of scores over [-2, 2]
_EXAMPLES = 100


@dataclass(frozen=True)
class Move:
    """How far scores of a kind of pairs move from the old model's.

    Attributes:
        pairs: ``genuine`` or ``impostor``; without identities, pairs that the old model rejects count as
            impostor pairs.
        scores: ``new`` or ``mixed``.
        count: number of pairs.
        old, mean: mean of the old model's scores, and of these scores.
        shift, spread: mean and standard deviation of the differences to the old model's scores.
        low, high: 5 % and 95 % quantile of the differences, to 0.001.
        correlation: of the two scores; 0 where one of them does not vary.
    """

    pairs: str
    scores: str
    count: int
    old: float
    mean: float
    shift: float
    spread: float
    low: float
    high: float
    correlation: float


@dataclass(frozen=True)
class Share:
    """A share of pairs (0 to 1), their count, and the share's 95 % interval, people resampled."""

    count: int
    share: float
    interval: Interval


@dataclass(frozen=True)
class Case:
    """Decisions of a way to go on, compared with the old model's at its threshold.

    Attributes:
        name: the way.
        scores: ``new`` or ``mixed``.
        threshold: pairs at or above it are accepted.
        lost, won: genuine pairs that only the old model accepts, and that only this way accepts.
        rise: of FRR, lost less won.
        people: how many have a lost pair.
        far: share of impostor pairs accepted.
        admitted, refused: impostor pairs that only this way accepts, and that only the old model
        accepts.
    """

    name: str
    scores: str
    threshold: float
    lost: Share
    won: Share
    rise: Share
    people: int
    far: float
    admitted: Share
    refused: Share


@dataclass(frozen=True)
class Example:
    """A pair whose decision differs.

    Attributes:
        case: name of the :class:`Case`.
        a, b: indices of the images.
        same: whether they are of one person.
        old, new: the scores.
    """

    case: str
    a: int
    b: int
    same: bool
    old: float
    new: float


# names of cases; below: name, scores, threshold
AGAIN, MIXED, MIXED_NEW, AS_IS, AS_IS_NEW = (
    "embedded again",
    "mixed: new probes, old enrolments",
    "mixed: new probes, new enrolments",
    "mixed, threshold unchanged: old enrolments",
    "mixed, threshold unchanged: new enrolments",
)
_CASES = (
    (AGAIN, "new", "new"),
    (MIXED, "mixed", "both"),
    (MIXED_NEW, "new", "both"),
    (AS_IS, "mixed", "old"),
    (AS_IS_NEW, "new", "old"),
)


@dataclass(frozen=True)
class Block:
    """Scores (K,) of some pairs by kind of score, and the indices (K,) of their images."""

    scores: dict[str, Scores]
    a: npt.NDArray[np.int64]
    b: npt.NDArray[np.int64]


class Tally:
    """Sums over blocks of pairs."""

    def __init__(
        self, cuts: dict[str, float], who: npt.NDArray[np.int64], labelled: bool, mixable: bool
    ) -> None:
        self.cuts, self.who, self.labelled = cuts, who, labelled
        self.images = np.bincount(who)
        self.others = ["new", "mixed"] if mixable else ["new"]
        self.sums = {(k, s): np.zeros(6) for k in KINDS for s in self.others}
        self.bins = {key: np.zeros(_BINS, np.int64) for key in self.sums}
        self.cases = _CASES if mixable else _CASES[:1]
        self.passed = {c[0]: 0 for c in self.cases}  # impostors that a case accepts
        self.changed: dict[str, list[tuple[npt.NDArray[Any], ...]]] = {c[0]: [] for c in self.cases}

    def add(self, block: Block) -> None:
        old = block.scores["old"]
        if self.labelled:
            same = self.who[block.a] == self.who[block.b]
        else:
            same = old >= self.cuts["old"]
        for kind, mask in zip(KINDS, (same, ~same), strict=True):
            for name in self.others:
                self._move((kind, name), old[mask], block.scores[name][mask])
        for case, name, cut in self.cases:
            scores = block.scores[name]
            before, after = old >= self.cuts["old"], scores >= self.cuts[cut]
            self.passed[case] += int((after & ~same).sum()) if self.labelled else int(after.sum())
            at = np.flatnonzero(before != after)
            self.changed[case].append(
                (block.a[at], block.b[at], same[at], after[at], old[at], scores[at])
            )

    def _move(self, key: tuple[str, str], old: Scores, new: Scores) -> None:
        x, y = old.astype(np.float64), new.astype(np.float64)
        self.sums[key] += [len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y]
        bins = np.clip(((y - x + 2) * (_BINS / 4)).astype(np.int64), 0, _BINS - 1)
        self.bins[key] += np.bincount(bins, minlength=_BINS)

    def moves(self) -> list[Move]:
        found = []
        for (kind, name), (count, x, y, xx, yy, xy) in self.sums.items():
            if not count:
                continue
            mx, my = x / count, y / count
            vx, vy, cov = xx / count - mx * mx, yy / count - my * my, xy / count - mx * my
            spread = np.sqrt(max(vx + vy - 2 * cov, 0.0))
            correlation = cov / np.sqrt(vx * vy) if vx > 1e-12 and vy > 1e-12 else 0.0
            running = np.cumsum(self.bins[kind, name])
            low, high = (
                (int(np.searchsorted(running, q * count)) + 0.5) * 4 / _BINS - 2
                for q in (0.05, 0.95)
            )
            values = (mx, my, my - mx, spread, low, high, correlation)
            found.append(Move(kind, name, int(count), *(round(float(v), 6) for v in values)))
        return found

    def case(self, name: str, scores: str, cut: str, genuine: int, impostors: int) -> Case:
        a, b, same, after, *_ = self._all(name)
        pairs = np.stack([self.who[a], self.who[b]])
        lost, won = same & ~after, same & after
        admitted, refused = ~same & after, ~same & ~after
        # a person's genuine pairs depend on each other; impostor pairs are taken as independent
        people = int((self.images > 1).sum()) if self.labelled else len(self.images) // 2
        of = (genuine, min(genuine, people))

        def share(mask: npt.NDArray[np.bool_], pairs_of: tuple[int, int]) -> Share:
            return self._share(pairs[:, mask], np.ones(mask.sum()), *pairs_of)

        return Case(
            name,
            scores,
            self.cuts[cut],
            share(lost, of),
            share(won, of),
            self._share(pairs[:, same], np.where(after[same], -1.0, 1.0), *of, signed=True),
            len(np.unique(pairs[0, lost])),
            self.passed[name] / impostors,
            share(admitted, (impostors, impostors)),
            share(refused, (impostors, impostors)),
        )

    def _share(
        self,
        pairs: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
        total: int,
        independent: int,
        signed: bool = False,
    ) -> Share:
        """Sum of the values (K,) of pairs of people (2,K), over ``total``, the number of such pairs.

        ``independent`` is how many of them share no person.
        """
        if not len(values):  # no such pair: the rule of three
            limit = min(1.0, 3 / max(independent, 1))
            return Share(0, 0.0, (-limit if signed else 0.0, limit))
        low, high = pairs_interval(values, pairs[0], pairs[1], self.images)
        if not self.labelled:  # "genuine" pairs are of two images, as all pairs are
            scale = len(self.images) * (len(self.images) - 1) / 2 / max(total, 1)
            low, high = low * scale, high * scale
        count = round(float(values.sum()))
        return Share(count, count / max(total, 1), (low, high))

    def _all(self, name: str) -> tuple[npt.NDArray[Any], ...]:
        return tuple(np.concatenate(column) for column in zip(*self.changed[name], strict=True))

    def examples(self) -> list[Example]:
        """The changed pairs whose scores moved most, up to 100 of each case."""
        found = []
        for name in self.changed:
            a, b, same, _, old, new = self._all(name)
            for i in np.argsort(-np.abs(new - old), kind="stable")[:_EXAMPLES]:
                pair = (int(a[i]), int(b[i]), bool(same[i]), float(old[i]), float(new[i]))
                found.append(Example(name, *pair))
        return found
