"""Which way is chosen."""

from __future__ import annotations

import pytest

from efquantface.errors import TargetError
from efquantface.target.choice import Choice
from efquantface.target.front import Candidate, Way, choose, front
from efquantface.target.goal import Target

EIGHT = Candidate(Way("w8a8"), 1_000, 2.0, 0.004, 0.003, 0.1)
SIX = Candidate(Way("w6a8"), 800, 2.0, 0.006, 0.005, 0.2)
FOUR = Candidate(Way("w4a8"), 600, 2.1, 0.03, 0.025, 0.8)
PRUNED = Candidate(Way("w8a8", prune=0.25), 800, 1.6, 0.04, 0.02, 0.7)
USELESS = Candidate(Way("w8a8", prune=0.5), 900, 2.2, 0.3, 0.1, 9.0)
ALL = [EIGHT, SIX, FOUR, PRUNED, USELESS]


def test_the_front_leaves_out_what_another_one_beats() -> None:
    assert front(ALL) == [EIGHT, SIX, PRUNED, FOUR]
    assert front([EIGHT, EIGHT]) == [EIGHT]


@pytest.mark.parametrize(
    ("target", "chosen"),
    [
        ("TAR@1e-4 -0.15", EIGHT),
        ("TAR@1e-4 -0.3", SIX),
        ("TAR@1e-4 -0.9", FOUR),
        ("850B", SIX),
        ("60%", FOUR),
        ("1.7ms", PRUNED),
    ],
)
def test_the_goal_decides(target: str, chosen: Candidate) -> None:
    assert choose(ALL, Target.parse(target)) == chosen


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("TAR@1e-4 -0.05", "nearest, w8a8, is predicted to lose 0.10"),
        ("500B", "smallest, w4a8, has 600"),
        ("1ms", "fastest, w8a8, 25% pruned, takes 1.60"),
    ],
)
def test_out_of_reach_says_what_is_in_reach(target: str, told: str) -> None:
    with pytest.raises(TargetError, match=told):
        choose(ALL, Target.parse(target))


def test_a_choice_is_read_as_it_was_written() -> None:
    import json

    made = Choice("850B", 1e-4, ALL, SIX, 40)
    assert Choice.read(json.dumps(made.as_dict())) == made
    assert [line[0] for line in made.lines()[1:-1]] == ["*", ">", "*", "*", " "]
