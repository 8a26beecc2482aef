"""A lock: one process at a time works in a run's folder."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from efquantface.errors import RunError
from efquantface.files import make_folder

NAME = ".lock"


def this_process() -> dict[str, Any]:
    """Process id, host and start time for ``env.json``; another process names them in its error."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": platform.node(), "began": now}


@contextmanager
def alone_in(folder: Path, environment: Path) -> Iterator[None]:
    """Make a run's folder, and lock it. The operating system unlocks it when the process ends.

    On file systems without locks nothing is locked.

    Args:
        folder: of the run.
        environment: the run's ``env.json``.

    Raises:
        RunError: another process has locked it.
        WriteError: the folder cannot be made.
    """
    make_folder(folder)
    lock = FileLock(folder / NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"{folder}: another process works in it{_who(environment)}; wait for it, or choose "
            "another -o"
        ) from None
    except (OSError, NotImplementedError):  # no locks on this file system
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _who(environment: Path) -> str:
    try:
        found = json.loads(environment.read_text(encoding="utf-8"))["process"]
        return f" (process {found['pid']} on {found['host']}, since {found['began']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
