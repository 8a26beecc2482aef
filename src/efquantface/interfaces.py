"""Shapes of what packages hand each other: how work tells how far it is, and what embeds faces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Progress = Callable[[int, int], None]  # called with what is done, of how much


class Rows(Protocol):
    """Rows of an array (N,...) that are looked up by index, wherever they lie; an array is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class Embeds(Protocol):
    """What gives embeddings (N,D) of uint8 RGB crops (N,H,W,3); an Embedder is one."""

    name: str

    def embed(
        self,
        faces: npt.NDArray[np.uint8],
        *,
        flip: bool = False,
        progress: Progress | None = None,
    ) -> npt.NDArray[np.float32]: ...
