"""Interfaces between packages: progress, rows of an array, and what embeds faces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Progress = Callable[[int, int], None]  # called with (done, total)


class Rows(Protocol):
    """Rows (N,...) that are read by index, in memory or not; an array is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class Embeds(Protocol):
    """Gives embeddings float32 (N,D) of crops uint8 RGB (N,H,W,3); an Embedder is one."""

    name: str

    def embed(
        self,
        faces: npt.NDArray[np.uint8],
        *,
        flip: bool = False,
        progress: Progress | None = None,
    ) -> npt.NDArray[np.float32]: ...
