"""Feeds crops in a file's own form: order of axes, grey or colour, type of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601), as in OpenCV and Pillow
_CHANNELS = (1, 3)
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(float64)": np.float64,
    "tensor(uint8)": np.uint8,
}


@dataclass(frozen=True)
class Layout:
    """The form of an input of four axes.

    Attributes:
        batch, height, width: None where the file leaves them open.
        channels: 3, or 1 where the network takes grey crops.
        last: whether channels come last, as in TensorFlow's files.
    """

    batch: int | None
    height: int | None
    width: int | None
    channels: int = 3
    last: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is (N,3,H,W)."""
        return self.channels == 3 and not self.last


def layout_of(shape: Sequence[int | str | None]) -> Layout | None:
    """The layout of an input's shape; sizes that are no positive number count as open.

    None where it is no image, since it has another number of axes or channels.
    """
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
    if len(sizes) != 4:
        return None
    batch, *rest = sizes
    last = rest[0] not in _CHANNELS and rest[2] in _CHANNELS
    if last:
        rest = [rest[2], rest[0], rest[1]]
    channels, height, width = rest
    if channels not in (None, *_CHANNELS):
        return None
    return Layout(batch, height, width, channels or 3, last)


def fed(x: npt.NDArray[np.float32], layout: Layout, element: str) -> npt.NDArray[np.generic]:
    """Crops in the input's layout and dtype.

    Args:
        x: float32 (N,3,H,W), normalized as in the contract. For grey, the channels count as red, green
        and
            blue.
        layout: of the input.
        element: ONNX Runtime's name of its type, for example ``tensor(float)``. Integers are rounded and
            clipped to 0..255.
    """
    found = x
    if layout.channels == 1:
        weights = np.asarray(LUMA, np.float32).reshape(1, 3, 1, 1)
        found = (found * weights).sum(axis=1, keepdims=True)
    if layout.last:
        found = np.ascontiguousarray(found.transpose(0, 2, 3, 1))
    dtype = _TYPES.get(element, np.float32)
    if np.issubdtype(dtype, np.integer):
        found = np.clip(np.rint(found), 0, 255)
    return found.astype(dtype, copy=False)
