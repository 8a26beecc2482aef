"""Islands: functions of each value, and reductions of axes, in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from efquantface.graph.ops.base import Operator

FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "abs": lambda x, _: torch.abs(x),
    "ceil": lambda x, _: torch.ceil(x),
    "cos": lambda x, _: torch.cos(x),
    "elu": lambda x, alpha: F.elu(x, alpha),
    "erf": lambda x, _: torch.erf(x),
    "exp": lambda x, _: torch.exp(x),
    "floor": lambda x, _: torch.floor(x),
    "log": lambda x, _: torch.log(x),
    "pow": torch.pow,
    "round": lambda x, _: torch.round(x),
    "sign": lambda x, _: torch.sign(x),
    "sin": lambda x, _: torch.sin(x),
    "softplus": lambda x, _: F.softplus(x),
    "tanh": lambda x, _: torch.tanh(x),
}
REDUCTIONS: dict[str, Callable[[Tensor, tuple[int, ...], bool], Tensor]] = {
    "max": torch.amax,
    "mean": lambda x, axes, keep: x.mean(axes, keep),
    "min": torch.amin,
    "sum": lambda x, axes, keep: x.sum(axes, keep),
}


class Function(Operator):
    """A function of each value.

    Args:
        function: a key of ``FUNCTIONS``.
        value: parameter of "pow" (the exponent) and "elu" (alpha).

    Raises:
        ValueError: the function is unknown.
    """

    kind = "function"
    island = True

    def __init__(self, function: str, value: float = 0.0) -> None:
        super().__init__()
        if function not in FUNCTIONS:
            raise ValueError(f"function {function!r} is none of {', '.join(FUNCTIONS)}")
        self.function, self.value = function, value

    def forward(self, x: Tensor) -> Tensor:
        return FUNCTIONS[self.function](x, self.value)

    def attrs(self) -> dict[str, Any]:
        return {"function": self.function, "value": self.value}


class Reduce(Operator):
    """Maximum, minimum, mean or sum of the values along axes.

    Args:
        reduction: a key of ``REDUCTIONS``.
        axes: the axes, not the batch.
        keep: keep the axes, with length 1.

    Raises:
        ValueError: the reduction is unknown.
    """

    kind = "reduce"
    island = True

    def __init__(self, reduction: str, axes: Sequence[int], keep: bool) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction {reduction!r} is none of {', '.join(REDUCTIONS)}")
        self.reduction, self.axes, self.keep = reduction, tuple(int(a) for a in axes), keep

    def forward(self, x: Tensor) -> Tensor:
        return REDUCTIONS[self.reduction](x, self.axes, self.keep)

    def attrs(self) -> dict[str, Any]:
        return {"reduction": self.reduction, "axes": self.axes, "keep": self.keep}
