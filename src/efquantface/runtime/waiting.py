"""Makes threads that wait for each other yield their core soon.

OpenMP's threads (PyTorch's and our kernels') spin at every barrier. When another process holds a core,
the last thread cannot run, and all others spin. So next to other work, setting ranges and rounding take
many times as long (docs/experiments/2026-11-27-beside-other-work.md).
"""

from __future__ import annotations

import os

_TURNS = "2000"  # turns of the loop; on an idle machine nothing is lost


def wait_briefly() -> None:
    """Set OpenMP's (libgomp's) spin count, read when PyTorch is imported; a user's setting is kept."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _TURNS)
