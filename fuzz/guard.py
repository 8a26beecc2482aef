"""Limits of reading an input: processor time, address space, and what it may touch."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_NEVER = (
    *("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"),
    *("os.forkpty", "pickle.find_class", "ctypes.dlopen", "os.kill", "os.chmod", "os.link"),
)
_MADE_BY_TORCH = "<eval_with_key>"  # forward code of a torch.fx graph, generated from checked names
_SYSTEM = ("/proc/", "/sys/", "/dev/null", "/dev/urandom", "/usr/share/zoneinfo", "/etc/localtime")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class TooLong(BaseException):
    """An input took too much processor time."""


class Watch:
    """Records what reading must never do: start programs, open sockets, write files elsewhere."""

    def __init__(self, folder: Path) -> None:
        """``folder`` holds the inputs. Only this folder may be written to."""
        self.folder = os.path.realpath(folder)
        roots = {sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[1])}
        self.readable = (*_SYSTEM, *(os.path.realpath(root) for root in roots))
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which one input is read and watched."""
        self.seen.clear()
        self.on = True
        try:
            yield
        finally:
            self.on = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        bad = event in _NEVER or event.startswith("socket.")
        if event == "open":
            bad = self._outside(arguments)
        elif event == "exec":
            code = arguments[0]
            bad = not (isinstance(code, CodeType) and self._known_code(code.co_filename))
        if bad:
            self.on = False  # later events follow from this one
            # addresses differ from input to input: failures of one kind would have many names
            told = re.sub(r"0x[0-9a-f]+", "0xN", str(arguments))
            self.seen.append(f"{event} {told[:200]}")
            self.on = True

    def _known_code(self, name: str) -> bool:
        if name.startswith((_MADE_BY_TORCH, "<frozen ")):
            return True
        return Path(name).is_absolute() and os.path.realpath(name).startswith(self.readable)

    def _outside(self, arguments: tuple[Any, ...]) -> bool:
        name, _, flags = arguments
        if not isinstance(name, str | bytes):
            return False  # an open descriptor
        place = os.path.realpath(os.fsdecode(name))
        if place.startswith(self.folder):
            return False
        return bool((flags or 0) & _WRITES) or not place.startswith(self.readable)


def limit_memory(megabytes: int) -> None:
    """Limit the address space to what the process has plus ``megabytes``."""
    status = Path("/proc/self/status").read_text()
    has = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize"))
    most = has * 1024 + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`TooLong` after so many seconds of processor time, also on a busy machine."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
