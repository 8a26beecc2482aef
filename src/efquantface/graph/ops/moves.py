"""Operators that move values and compute nothing. They hand on codes unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from efquantface.graph.ops.base import Operator


class ZeroPad(Operator):
    """Zeros behind the channels and around height and width (dlib's add_prev, asymmetric padding).

    Height and width are the last two axes. For (N,T,D), ``top`` adds tokens in front.

    Args:
        channels: number of zero channels behind the others.
        top, bottom, left, right: numbers of zero rows and columns.
    """

    kind = "pad"
    moves_codes = True

    def __init__(
        self, channels: int = 0, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0
    ) -> None:
        super().__init__()
        self.channels, self.top, self.bottom, self.left, self.right = (
            channels,
            top,
            bottom,
            left,
            right,
        )

    def forward(self, x: Tensor) -> Tensor:
        around = (self.left, self.right, self.top, self.bottom)
        return F.pad(x, (*around, 0, self.channels) if self.channels else around)

    def attrs(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("channels", "top", "bottom", "left", "right")}


class Flatten(Operator):
    """(N,C,H,W) to (N,C*H*W)."""

    kind = "flatten"
    moves_codes = True

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Reshape(Operator):
    """(N, ...) to (N, *shape). The batch size stays open."""

    kind = "reshape"
    moves_codes = True

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(int(v) for v in shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.shape)

    def attrs(self) -> dict[str, Any]:
        return {"shape": self.shape}


class Transpose(Operator):
    """Axes in another order. The batch stays first.

    Args:
        order: a permutation that begins with 0.
    """

    kind = "transpose"
    moves_codes = True

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = tuple(int(v) for v in order)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)

    def attrs(self) -> dict[str, Any]:
        return {"order": self.order}


class Slice(Operator):
    """``x[start:stop]`` along one axis that is not the batch."""

    kind = "slice"
    moves_codes = True

    def __init__(self, axis: int, start: int, stop: int) -> None:
        super().__init__()
        self.axis, self.start, self.stop = axis, start, stop

    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(self.axis, self.start, self.stop - self.start)

    def attrs(self) -> dict[str, Any]:
        return {"axis": self.axis, "start": self.start, "stop": self.stop}


class Pick(Operator):
    """Entries of one axis, in any order and any number of times.

    For swapped channels, mirror images, strides, repeated borders, nearest-neighbour resizing.

    Args:
        axis: any but the batch.
        indices: of the entries.
    """

    kind = "pick"
    moves_codes = True
    index: Tensor

    def __init__(self, axis: int, indices: Sequence[int]) -> None:
        super().__init__()
        self.axis, self.indices = axis, tuple(int(v) for v in indices)
        self.register_buffer("index", torch.tensor(self.indices), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(self.axis, self.index)

    def attrs(self) -> dict[str, Any]:
        return {"axis": self.axis, "indices": self.indices}
