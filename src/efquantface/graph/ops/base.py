"""What an operator of a canonical graph declares, and sets of operators (vocabularies)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn


class Operator(nn.Module):
    """The base class of operators, with their declarations.

    Attributes:
        kind: its name in the plain-data form.
        moves_codes: it hands on integer codes unchanged, or limits them.
        island: it always computes in float.
    """

    kind: ClassVar[str]
    moves_codes: ClassVar[bool] = False
    island: ClassVar[bool] = False

    def attrs(self) -> dict[str, Any]:
        """The constructor's arguments as plain data: numbers, strings, and lists or tuples of them."""
        return {}


Vocabulary = Mapping[str, type[Operator]]


def vocabulary(*operators: type[Operator]) -> Vocabulary:
    """Operators by their kind, for reading a checkpoint."""
    return {operator.kind: operator for operator in operators}


def moves_codes(module: nn.Module | None) -> bool:
    """Whether a module hands on integer codes unchanged, or limits them."""
    return isinstance(module, Operator) and module.moves_codes


def is_island(module: nn.Module | None) -> bool:
    """Whether a module is an operator that always computes in float."""
    return isinstance(module, Operator) and module.island
