"""Handles Ctrl-C and SIGTERM at any moment: no traceback, and exit code 130."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

CODE = 130  # exit code that shells use for Ctrl-C
_SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it

_told = False


def listen() -> None:
    """Turn both signals into KeyboardInterrupt; a signal that the parent set to ignored stays so."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def told() -> bool:
    """Whether a signal has come."""
    return _told


def finished() -> None:
    """Restore both signals' default: during the interpreter's end they end the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_DFL)


def leave() -> None:
    """End at once, without waiting for threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with contextlib.suppress(OSError):
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + b"stopped\n")
    os._exit(CODE)


def _stop(number: int, frame: FrameType | None) -> None:
    global _told
    _told = True
    # packages that are interrupted during their import may print, swallow or rename the interrupt
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            leave()
        frame = frame.f_back
    raise KeyboardInterrupt
