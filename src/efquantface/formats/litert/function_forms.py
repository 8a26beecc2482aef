"""LiteRT forms of functions of each value, written in operators that XNNPACK computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from efquantface.formats.litert.values import Value
from efquantface.formats.litert.writer import Writer
from efquantface.graph import ops

_LARGE = 3e38  # any normal number times this is larger than one
# functions that one operator computes
_SINGLE = {
    "abs": "ABS",
    "ceil": "CEIL",
    "cos": "COS",
    "exp": "EXP",
    "floor": "FLOOR",
    "log": "LOG",
    "round": "ROUND",
    "sin": "SIN",
    "tanh": "TANH",
}


def function(out: Writer, name: str, m: ops.Function, inputs: list[Value]) -> Value:
    """A function of each value, in float."""
    x = out.real(inputs[0])
    if m.function in _SINGLE:
        return out.float_op(_SINGLE[m.function], (x.tensor,), x)
    return _COMPOSED[m.function](out, x, m.value)


def is_known(m: ops.Function) -> bool:
    """Whether a function has a LiteRT form. The error function and most powers have none."""
    return m.function in _SINGLE or (
        m.function in _COMPOSED and (m.function != "pow" or m.value in _POWERS)
    )


def with_number(out: Writer, op: str, x: Value, number: float) -> Value:
    """An operator of a value and a number."""
    constant = out.constant(np.full((1,) * len(x.shape), number))
    return out.float_op(op, (x.tensor, constant), x)


def _of_two(out: Writer, op: str, x: Value, y: Value) -> Value:
    return out.float_op(op, (x.tensor, y.tensor), x)


def _sign(out: Writer, x: Value, _: float) -> Value:
    """The sign: any number made large and limited to -1..1."""
    large = with_number(out, "MUL", x, _LARGE)
    return with_number(out, "MINIMUM", with_number(out, "MAXIMUM", large, -1.0), 1.0)


def _elu(out: Writer, x: Value, alpha: float) -> Value:
    """``max(x, 0) + alpha (exp(min(x, 0)) - 1)``."""
    bent = out.float_op("EXP", (with_number(out, "MINIMUM", x, 0.0).tensor,), x)
    bent = with_number(out, "MUL", with_number(out, "SUB", bent, 1.0), alpha)
    return _of_two(out, "ADD", out.float_op("RELU", (x.tensor,), x), bent)


def _softplus(out: Writer, x: Value, _: float) -> Value:
    """``max(x, 0) + log(1 + exp(-|x|))``, which cannot overflow."""
    size = with_number(out, "MUL", out.float_op("ABS", (x.tensor,), x), -1.0)
    small = with_number(out, "ADD", out.float_op("EXP", (size.tensor,), x), 1.0)
    bent = out.float_op("LOG", (small.tensor,), x)
    return _of_two(out, "ADD", out.float_op("RELU", (x.tensor,), x), bent)


def _square(out: Writer, x: Value) -> Value:
    return _of_two(out, "MUL", x, x)


_POWERS: dict[float, Callable[[Writer, Value], Value]] = {
    -0.5: lambda out, x: out.float_op("RSQRT", (x.tensor,), x),
    0.5: lambda out, x: out.float_op("SQRT", (x.tensor,), x),
    1.0: lambda out, x: x,
    2.0: _square,
    3.0: lambda out, x: _of_two(out, "MUL", _square(out, x), x),
    4.0: lambda out, x: _square(out, _square(out, x)),
}
_COMPOSED: dict[str, Callable[[Writer, Value, float], Value]] = {
    "sign": _sign,
    "elu": _elu,
    "softplus": _softplus,
    "pow": lambda out, x, value: _POWERS[value](out, x),
}
