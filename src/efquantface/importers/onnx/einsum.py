"""Einsum of two values as transpositions and one matrix product (attention, bilinear pooling)."""

from __future__ import annotations

from math import prod

from efquantface.graph import ops
from efquantface.importers.onnx.context import Handler, NotCanonical, Operands


def _einsum(op: Operands) -> str:
    equation = op.attrs["equation"].decode().replace(" ", "")
    given, _, result = equation.partition("->")
    terms = given.split(",")
    if len(terms) != 2 or len(result) < 2 or "." in equation:
        raise NotCanonical(f"an einsum of {equation}")
    if any(len(set(term)) != len(term) for term in (*terms, result)):
        raise NotCanonical(f"an einsum of {equation}")
    if any(op.is_constant(i) for i in (0, 1)):
        return _with_constant(op, terms, result)
    first, second = terms
    batch = result[:1]
    if first[0] != batch or second[0] != batch:
        raise NotCanonical(f"an einsum of {equation}, which works across the batch")
    sizes = {**_sizes(op, 0, first), **_sizes(op, 1, second)}
    both = [x for x in result[1:] if x in first and x in second]
    rows = [x for x in result[1:] if x in first and x not in second]
    columns = [x for x in result[1:] if x in second and x not in first]
    summed = [x for x in first[1:] if x in second and x not in result]
    left = _matrices(op, 0, first, [both, rows, summed])
    right = _matrices(op, 1, second, [both, summed, columns])
    found = op.add(ops.MatMul(), left, right, suffix="_product")
    order = [*both, *rows, *columns]
    if len(order) + 1 != len(result):
        raise NotCanonical(f"an einsum of {equation}")
    found = op.add(ops.Reshape([sizes[x] for x in order]), found, suffix="_axes")
    return _ordered(op, found, order, list(result[1:]))


def _sizes(op: Operands, index: int, term: str) -> dict[str, int]:
    shape = op.shape(index)
    if len(shape) != len(term):
        raise NotCanonical(f"{term} for {shape}")
    return dict(zip(term, shape, strict=True))


def _matrices(op: Operands, index: int, term: str, groups: list[list[str]]) -> str:
    """An operand as (N, both, rows, columns). Each of the last three joins the axes of one group."""
    order = [x for group in groups for x in group]
    if sorted(order) != sorted(term[1:]):
        raise NotCanonical(f"{term}, of which an axis is summed alone")
    sizes = _sizes(op, index, term)
    turned = _ordered(op, op.activation(index), list(term[1:]), order, f"_{index}")
    shape = [prod(sizes[x] for x in group) for group in groups]
    return op.add(ops.Reshape(shape), turned, suffix=f"_{index}_matrix")


def _ordered(
    op: Operands, source: str, given: list[str], wanted: list[str], suffix: str = ""
) -> str:
    """A value with the axes behind the batch in another order."""
    if given == wanted:
        return source
    order = [0, *(given.index(x) + 1 for x in wanted)]
    return op.add(ops.Transpose(order), source, suffix=suffix)


def _with_constant(op: Operands, terms: list[str], result: str) -> str:
    """An einsum with a constant as a linear layer. The constant's axes that are not summed come last."""
    at = 1 if op.is_constant(1) else 0
    term, weight = terms[1 - at], op.tensor(at)
    summed = [x for x in term[1:] if x in terms[at] and x not in result]
    made = [x for x in terms[at] if x not in term]
    kept = [x for x in term[1:] if x not in summed]
    axes = [*summed, *made]
    fits = sorted(axes) == sorted(terms[at]) and weight.dim() == len(axes)
    if not fits or not summed or not made or result[0] != term[0]:
        raise NotCanonical(f"an einsum of {term} with a constant {terms[at]}")
    if sorted(result[1:]) != sorted([*kept, *made]):
        raise NotCanonical(f"an einsum of {term} with a constant {terms[at]}")
    sizes = _sizes(op, 1 - at, term)
    matrix = weight.permute([terms[at].index(x) for x in axes])
    sizes |= dict(zip(axes, matrix.shape, strict=True))
    source = _ordered(op, op.activation(1 - at), list(term[1:]), [*kept, *summed], "_in")
    inputs = prod(sizes[x] for x in summed)
    rows = op.add(ops.Reshape([*(sizes[x] for x in kept), inputs]), source, suffix="_rows")
    linear = ops.linear_from(matrix.reshape(inputs, -1).T.contiguous(), None)
    found = op.add(linear, rows, suffix="_linear")
    order = [*kept, *made]
    found = op.add(ops.Reshape([sizes[x] for x in order]), found, suffix="_axes")
    return _ordered(op, found, order, list(result[1:]))


EINSUM_HANDLERS: dict[str, Handler] = {"Einsum": _einsum}
