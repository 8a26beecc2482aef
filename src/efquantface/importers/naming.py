"""How a repository names its tensors, as data: a signature, a renaming, a backbone, a preprocessing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]


class NotRecognized(Exception):
    """The tensors begin like a dialect's and go on otherwise; the text says how."""


def with_affine(tensors: Tensors) -> dict[str, Tensor]:
    """The tensors, and the scale and shift that a last BatchNorm of ``affine=False`` leaves out."""
    result = dict(tensors)
    for norm in ("features", "bn"):
        if f"{norm}.running_mean" in result and f"{norm}.weight" not in result:
            mean = result[f"{norm}.running_mean"]
            result[f"{norm}.weight"] = torch.ones_like(mean)
            result[f"{norm}.bias"] = torch.zeros_like(mean)
    return result


@dataclass(frozen=True)
class Dialect:
    """One way of naming.

    Attributes:
        name: what it is called in messages.
        signature: a tensor that every checkpoint of it has.
        rename: a tensor's name in our backbone, or the same name where it has none.
        prepare: renamed tensors as our backbone holds them.
        build: the backbone for renamed tensors; raises :class:`NotRecognized` or ``KeyError``.
        preprocess: how these networks usually want their pixels (``contract.PREPROCESS``), the
            likeliest first where networks of these names differ; faces decide.
        by_prefix: the same where the names begin with a wrapper of another repository.
        size: height and width of a crop.
        template: landmark template of a crop (``contract.TEMPLATES``).
        unused: pattern of the names that training alone needs; empty for none.
    """

    name: str
    signature: str
    rename: Callable[[str], str]
    build: Callable[[Tensors], nn.Module]
    preprocess: tuple[str, ...] = ("insightface",)
    by_prefix: tuple[tuple[str, tuple[str, ...]], ...] = ()
    size: int = 112
    template: str = "arcface112"
    unused: str = ""
    prepare: Callable[[Tensors], dict[str, Tensor]] = with_affine

    def readings(self, prefix: str) -> tuple[str, ...]:
        """The preprocessings of checkpoints with this prefix, the likeliest first."""
        return next((how for start, how in self.by_prefix if prefix == start), self.preprocess)


def rules(*given: tuple[str, str]) -> Callable[[str], str]:
    """Rename by the first rule (pattern of the whole beginning, replacement) that fits."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in given]

    def rename(name: str) -> str:
        for pattern, replacement in compiled:
            renamed, times = pattern.subn(replacement, name, count=1)
            if times:
                return renamed
        return name

    return rename


def count(tensors: Tensors, pattern: str) -> int:
    """How many different first groups of ``pattern`` the names have."""
    found = {m.group(1) for m in (re.match(pattern, name) for name in tensors) if m}
    return len(found)


def same_name(name: str) -> str:
    """For checkpoints in our own names."""
    return name
