"""Turns stored pixels into a network's input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def as_input(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 pixels (N,3,H,W) as float32 on the device, in channels-last memory."""
    tensor = torch.from_numpy(pixels).to(device).float()
    return tensor.contiguous(memory_format=torch.channels_last)
