"""How large an operator's result would be, before it is computed: shapes without values."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

MOST_VALUES = 1 << 27  # of one result for one crop: 512 MB, a hundred times what face networks have


class TooLarge(ValueError):
    """A result would have more values than any network's."""


def check_result(module: nn.Module, *inputs: Tensor) -> None:
    """Refuse an operator whose result on these inputs is too large to be computed.

    Raises:
        TooLarge: saying how many values it would have.
    """
    if isinstance(module, fx.GraphModule):
        return
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {name: value.to("meta") for name, value in state.items()}
    try:
        with torch.no_grad():
            found = functional_call(module, shapes, tuple(i.to("meta") for i in inputs))
    except NotImplementedError:  # an operator without shapes of its own keeps that of its input
        return
    check_values(found)


def check_values(result: Tensor) -> None:
    """Refuse a result of too many values.

    Raises:
        TooLarge: saying how many.
    """
    if result.numel() > MOST_VALUES:
        raise TooLarge(f"gives {result.numel():,} values for a crop")
