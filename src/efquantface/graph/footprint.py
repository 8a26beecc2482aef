"""How large an operator's result would be, found from shapes before it is computed."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from efquantface.graph.limits import MOST_VALUES, TooLarge
from efquantface.graph.ops import Pick, ZeroPad

_SMALL = MOST_VALUES // 64  # values; plain operators do not make too many of these
_EDGE = 64  # zeros around a map, at most
_AREA = 9  # a map of _EDGE or more has at most so many times its values with them around it


def check_result(module: nn.Module, *inputs: Tensor) -> None:
    """Refuse an operator whose result on these inputs is too large to be computed.

    Raises:
        TooLarge: with the number of values.
    """
    if isinstance(module, fx.GraphModule) or _stays_small(module, inputs):
        return
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {name: value.to("meta") for name, value in state.items()}
    try:
        with torch.no_grad():
            found = functional_call(module, shapes, tuple(i.to("meta") for i in inputs))
    except NotImplementedError:  # operators without a shape rule keep their input's shape
        return
    if found.numel() > MOST_VALUES:
        raise TooLarge(f"gives {found.numel():,} values for a crop")


def _stays_small(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a result is certainly small. This saves loading PyTorch's shape inference (one second)."""
    values = sum(i.numel() for i in inputs)
    wide = _largest(getattr(module, "out_channels", 1)) / _largest(
        getattr(module, "in_channels", 1)
    )
    wide *= _largest(getattr(module, "out_features", 1))
    if values > _SMALL or values * wide * _AREA > MOST_VALUES:
        return False
    if len({i.shape for i in inputs}) > 1 and prod(i.numel() for i in inputs) > MOST_VALUES:
        return False
    numbers = [getattr(module, "padding", 0)]
    if isinstance(module, ZeroPad):
        numbers = list(module.attrs().values())
    elif isinstance(module, Pick):
        numbers = [len(module.indices) // _EDGE]
    return max(map(_largest, numbers)) <= _EDGE


def _largest(number: Any) -> int:
    """The largest of several numbers, or the number itself."""
    numbers = number if isinstance(number, tuple | list) else (number,)
    return max((abs(n) for n in numbers if isinstance(n, int)), default=1 << 62)
