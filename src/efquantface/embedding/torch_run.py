"""Runs loaded models in PyTorch for the Embedder, on the CPU or a GPU."""

from __future__ import annotations

import copy

import numpy as np
import torch

from efquantface.errors import RuntimeMissingError
from efquantface.graph.model import FaceModel
from efquantface.quantize.fused import fused
from efquantface.runtime.sessions import Float32, Run


def check_device(device: str) -> torch.device:
    """The torch device of a name.

    Raises:
        RuntimeMissingError: the device is unknown or not on this machine.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        raise RuntimeMissingError(f"device {device!r} is not known; use cpu or cuda") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeMissingError("CUDA was asked for and is not available; use --device cpu")
    return found


def run_torch(model: FaceModel, device: str) -> Run:
    """A function from normalized input float32 (N,3,H,W) to embeddings float32 (N,D).

    The graph takes pixels, so the normalization is undone first.

    Raises:
        RuntimeMissingError: see :func:`check_device`.
    """
    where = check_device(device)
    # on a GPU a copy: the caller still uses the model on the CPU
    graph = (model.graph if where.type == "cpu" else copy.deepcopy(model.graph)).to(where)
    graph = fused(graph) if model.quantized else graph
    mean = torch.tensor(model.contract.mean, device=where).view(1, 3, 1, 1)
    std = torch.tensor(model.contract.std, device=where).view(1, 3, 1, 1)

    def run(x: Float32) -> Float32:
        with torch.no_grad():
            pixels = torch.from_numpy(x).to(where) * std + mean
            return np.asarray(graph(pixels.round()).cpu().numpy(), np.float32)

    return run
