"""Estimates the memory of training, and cuts a batch into microbatches to stay below a limit."""

from __future__ import annotations

import sys
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from efquantface.runtime.memory import freed_memory

COMPILER_MB = 2000.0  # measured: 1.4 GB with mobileface2, 1.9 GB with IResNet-100
# values a weight: itself, gradient, two moments of AdamW, the best so far; quantizing keeps 4 more
_WEIGHTS = 5 + 4
_SLACK = 1.5  # for gaps between blocks of memory, and for maps that one operator needs


def peak_memory_mb() -> float:
    """MB of the process's peak so far; what is in use now if the system does not report the peak."""
    if sys.platform.startswith("linux"):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    info = psutil.Process().memory_info()
    return float(getattr(info, "peak_wset", 0) or info.rss) / 2**20


def saved_bytes(module: nn.Module, pixels: Tensor) -> float:
    """Bytes an image that a forward pass keeps for its backward pass, without torch.compile.

    A compiled pass keeps about as much. The difference between four images and two leaves out what
    images share.

    Args:
        module: in training mode.
        pixels: (4,3,H,W) float.
    """

    def kept(batch: Tensor) -> int:
        sizes: dict[int, int] = {}
        alive: list[Tensor] = []  # keeps addresses from being used twice

        def pack(tensor: Tensor) -> Any:
            """Pack nothing: a node that keeps its own output would be a circle, and a leak."""
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor.detach())

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda _: torch.empty(0)):
            module(batch)
        return sum(sizes.values())

    return max(kept(pixels[:4]) - kept(pixels[:2]), 0) / 2


def microbatch_size(
    batch: int, an_image: float, weights: int, limit_mb: float, compiler_mb: float = 0.0
) -> tuple[int, float]:
    """(images of a microbatch, expected MB of the process), to stay below ``limit_mb``.

    All microbatches of a batch have the same size, at least two images, even if these are too many.

    Args:
        batch: images a step.
        an_image: bytes an image, from :func:`saved_bytes`.
        weights: trained values.
        limit_mb: of the whole process.
        compiler_mb: MB that the compiler takes; ``COMPILER_MB`` if the step is compiled.
    """
    in_use = max(psutil.Process().memory_info().rss - freed_memory(), 0)
    fixed = in_use + 4 * weights * _WEIGHTS * _SLACK + compiler_mb * 2**20
    an_image = an_image * _SLACK
    sizes = [n for n in range(batch, 1, -1) if batch % n == 0] or [batch]
    fitting = [n for n in sizes if fixed + n * an_image <= limit_mb * 2**20]
    chosen = fitting[0] if fitting else sizes[-1]
    return chosen, (fixed + chosen * an_image) / 2**20
