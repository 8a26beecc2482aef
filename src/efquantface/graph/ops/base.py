"""What an operator of a canonical graph is, and a set of them to read a checkpoint with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn


class Operator(nn.Module):
    """One declaration an operator.

    Attributes:
        kind: its name in the plain-data form.
        moves_codes: it hands on integer codes as they are, or limits them.
        island: it computes in float between the integer layers.
    """

    kind: ClassVar[str]
    moves_codes: ClassVar[bool] = False
    island: ClassVar[bool] = False

    def attrs(self) -> dict[str, Any]:
        """The constructor's arguments as plain data: numbers, strings, lists and tuples of them."""
        return {}


Vocabulary = Mapping[str, type[Operator]]


def vocabulary(*operators: type[Operator]) -> Vocabulary:
    """Operators by their kind, as a checkpoint is read with."""
    return {operator.kind: operator for operator in operators}


def moves_codes(module: nn.Module | None) -> bool:
    """Whether a module hands on integer codes as they are, or limits them."""
    return isinstance(module, Operator) and module.moves_codes


def is_island(module: nn.Module | None) -> bool:
    """Whether a module is an operator that always computes in float."""
    return isinstance(module, Operator) and module.island
