"""All targets by name."""

from __future__ import annotations

from fuzz.readers import checkpoints, faces, networks, pairs, texts
from fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for family in (faces, pairs, texts, networks, checkpoints)
    for target in family.TARGETS
}
