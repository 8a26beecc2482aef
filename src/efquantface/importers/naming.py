"""Dialects as data: a signature, a renaming, a backbone, a preprocessing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]


class NotRecognized(Exception):
    """Tensors have a dialect's signature but are otherwise not its own; the text says why."""


def with_affine(tensors: Tensors) -> dict[str, Tensor]:
    """The tensors, with ones and zeros as scale and shift of a last BatchNorm of ``affine=False``."""
    result = dict(tensors)
    for norm in ("features", "bn"):
        if f"{norm}.running_mean" in result and f"{norm}.weight" not in result:
            mean = result[f"{norm}.running_mean"]
            result[f"{norm}.weight"] = torch.ones_like(mean)
            result[f"{norm}.bias"] = torch.zeros_like(mean)
    return result


@dataclass(frozen=True)
class Dialect:
    """One way of naming a backbone's tensors.

    Attributes:
        name: of the dialect, for messages.
        signature: a tensor that all its checkpoints have.
        rename: from a tensor's name to our backbone's; other names are not changed.
        prepare: from renamed tensors to those of our backbone.
        build: the backbone for renamed tensors; raises :class:`NotRecognized` or ``KeyError``.
        preprocess: normalizations of these networks (``contract.PREPROCESS``), the likeliest first.
            Where there are several, faces decide.
        by_prefix: the same for names with the prefix of another repository's wrapper.
        size: height and width of a crop.
        template: alignment template of a crop (``contract.TEMPLATES``).
        unused: pattern of names that only training needs; empty for none.
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
        """Normalizations of checkpoints with this prefix, the likeliest first."""
        return next((how for start, how in self.by_prefix if prefix == start), self.preprocess)


def rules(*given: tuple[str, str]) -> Callable[[str], str]:
    """A renaming by the first rule (pattern of the name's beginning, replacement) that matches."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in given]

    def rename(name: str) -> str:
        for pattern, replacement in compiled:
            renamed, times = pattern.subn(replacement, name, count=1)
            if times:
                return renamed
        return name

    return rename


def count(tensors: Tensors, pattern: str) -> int:
    """How many different values the first group of ``pattern`` has in the names."""
    found = {m.group(1) for m in (re.match(pattern, name) for name in tensors) if m}
    return len(found)


def same_name(name: str) -> str:
    """The renaming of checkpoints with our own names: none."""
    return name
