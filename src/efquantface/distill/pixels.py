"""From stored pixels to what a network takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def as_input(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Float pixels (N,3,H,W) on the device, channels last."""
    tensor = torch.from_numpy(pixels).to(device).float()
    return tensor.contiguous(memory_format=torch.channels_last)
