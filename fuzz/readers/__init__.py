"""All targets by name."""

from __future__ import annotations

import torch

from fuzz.readers import checkpoints, faces, litert, networks, pairs, texts
from fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for family in (faces, pairs, texts, networks, litert, checkpoints)
    for target in family.TARGETS
}

# PyTorch imports more when it first prints a tensor and when it first infers a shape
repr(torch.zeros(1))
torch.relu(torch.zeros(1, device="meta"))
