"""Threads that wait for each other give their core away soon.

OpenMP's threads (PyTorch's, and those of our kernels) wait in a loop at every barrier. Where another
process needs the core, the thread that is waited for does not run, and all wait on: beside other work,
ranges and rounding take many times their time (``benchmarks/busy_machine.py``).
"""

from __future__ import annotations

import os

_TURNS = "2000"  # of the loop; an idle machine hardly sees it


def wait_briefly() -> None:
    """Tell OpenMP (libgomp), which reads this when PyTorch is imported; what a user set stays."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _TURNS)
