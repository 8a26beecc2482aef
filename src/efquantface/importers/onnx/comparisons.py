"""Choices between two values: comparisons give 1 or 0 in float, and Where chooses by them."""

from __future__ import annotations

import torch

from efquantface.graph import ops
from efquantface.importers.onnx.arithmetic import (
    combined,
    function,
    spread,
    with_scale,
    with_shift,
)
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands


def _above(op: Operands, first: int, second: int) -> str:
    """1 where input ``first`` is greater than input ``second``, else 0."""
    if op.is_constant(first):
        source = op.activation(second)
        apart = with_scale(op, source, -torch.ones(1))
        apart = with_shift(op, apart, spread(op, op.tensor(first), source))
    elif op.is_constant(second):
        source = op.activation(first)
        apart = with_shift(op, source, -spread(op, op.tensor(second), source))
    else:
        apart = combined(op, "Sub", op.activation(first), op.activation(second))
    return op.add(ops.Clamp(0.0, None), function(op, "sign", apart))


def _not(op: Operands, source: str) -> str:
    return with_shift(op, with_scale(op, source, -torch.ones(1)), torch.ones(1))


def _compare(op: Operands) -> str:
    kind = op.node.op_type
    orders = {"Greater": (0, 1), "Less": (1, 0), "GreaterOrEqual": (1, 0), "LessOrEqual": (0, 1)}
    found = _above(op, *orders[kind])
    return _not(op, found) if kind.endswith("OrEqual") else found


def _and(op: Operands) -> str:
    return combined(op, "Mul", op.activation(0), op.activation(1))


def _or(op: Operands) -> str:
    return op.add(ops.Clamp(None, 1.0), combined(op, "Add", op.activation(0), op.activation(1)))


def _where(op: Operands) -> str:
    """``c a + (1 - c) b`` for a condition ``c`` of 1 and 0."""
    chosen = "" if op.is_constant(0) else op.activation(0)
    mask = op.tensor(0) if op.is_constant(0) else None
    parts: list[str | torch.Tensor] = []
    for index in (1, 2):
        if mask is not None:
            share = mask if index == 1 else 1 - mask
            if op.is_constant(index):
                parts.append(share * op.tensor(index))
            else:
                parts.append(
                    with_scale(op, op.activation(index), spread(op, share, op.activation(index)))
                )
            continue
        share_of = chosen if index == 1 else _not(op, chosen)
        if op.is_constant(index):
            value = op.tensor(index)
            if not bool(value.isfinite().all()):
                raise NotCanonical("a choice of values that are not finite")
            parts.append(with_scale(op, share_of, spread(op, value, share_of)))
        else:
            parts.append(combined(op, "Mul", op.activation(index), share_of))
    total, *values = sorted(parts, key=lambda part: not isinstance(part, str))
    assert isinstance(total, str)
    for part in values:
        if isinstance(part, str):
            total = combined(op, "Add", total, part)
        else:
            total = with_shift(op, total, spread(op, part, total))
    return total


COMPARISON_HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("Greater", "Less", "GreaterOrEqual", "LessOrEqual"), _compare),
    "And": _and,
    "Or": _or,
    "Not": lambda op: _not(op, op.activation()),
    "Where": _where,
}
