"""The watch of a run's processes: notices those that are silent or have failed."""

from __future__ import annotations

import _thread
import json
import os
import platform
import sys
import threading
import time
from contextlib import suppress

from torch.distributed import TCPStore  # type: ignore[attr-defined]

_BEAT = 2.0  # seconds
_SILENT = 30.0  # seconds without a beat after which a process counts as gone
_MERCY = 5.0  # seconds in which the main thread may notice by itself
_PATIENCE = 20.0  # seconds that the main thread has to save and end, once interrupted
_FAILED, _LEFT = "failed", "left"


class Watch(threading.Thread):
    """A thread that writes this process's beat and reads those of the others.

    Attributes:
        said: what happened to another process, in words; None while all work.
        first_is_gone: whether the first process has ended.
        left: whether the work in common is over.
    """

    def __init__(self, store: TCPStore, rank: int, count: int) -> None:
        super().__init__(daemon=True, name="efq-watch")
        self.store, self.rank, self.count = store, rank, count
        self.said: str | None = None
        self.first_is_gone = self.left = False
        self._lock = threading.Lock()
        self._own = f"process {rank} on {platform.node()}"
        self._beats = 0

    def run(self) -> None:
        heard = {rank: ("", time.monotonic()) for rank in range(self.count) if rank != self.rank}
        while not self.left:
            try:
                self._beat()
                self._listen(heard)
            except Exception:  # the store ends with the process that holds it
                if not self.left:
                    self.said = "the first process of the run has ended without a message"
                    self.first_is_gone = True
            if self.said is not None:
                self._end()
                return
            time.sleep(_BEAT)

    def tell(self, why: str, patience: float = 0.0) -> None:
        """Tell all that this process has failed.

        Args:
            why: the reason.
            patience: seconds to wait, at most, until all others have left.
        """
        told = json.dumps({"rank": self.rank, "text": f"{self._own}: {why}"})
        self.left = True
        until = time.monotonic() + patience
        with suppress(Exception), self._lock:
            self.store.set(_FAILED, told)
            while time.monotonic() < until and not all(
                self._beat_of(rank) == _LEFT for rank in range(self.count) if rank != self.rank
            ):
                time.sleep(0.05)

    def leave(self) -> None:
        """End the watch; the others do not wait for this process any longer."""
        self.left = True
        with suppress(Exception), self._lock:
            self.store.set(f"beat/{self.rank}", _LEFT)

    def _beat(self) -> None:
        self._beats += 1
        with self._lock:
            if not self.left:
                self.store.set(f"beat/{self.rank}", str(self._beats))

    def _beat_of(self, rank: int) -> str:
        key = f"beat/{rank}"
        return str(self.store.get(key).decode()) if self.store.check([key]) else ""

    def _listen(self, heard: dict[int, tuple[str, float]]) -> None:
        with self._lock:
            failed = self.store.get(_FAILED) if self.store.check([_FAILED]) else None
        if failed is not None:
            told = json.loads(failed)
            if told["rank"] != self.rank:
                self.said, self.first_is_gone = str(told["text"]), False
            return
        now = time.monotonic()
        for rank, (before, since) in list(heard.items()):
            with self._lock:
                beat = self._beat_of(rank)
            if beat == _LEFT:
                del heard[rank]
            elif beat != before:
                heard[rank] = beat, now
            elif now - since > _SILENT:
                self.said = f"process {rank} of the run does not answer for {_SILENT:.0f} seconds"
                self.first_is_gone = rank == 0

    def _end(self) -> None:
        """Wait for the main thread to end; then interrupt it; then end the process."""
        if self._waited(_MERCY):
            return
        _thread.interrupt_main()
        if self._waited(_PATIENCE):
            return
        if self.rank == 0 or self.first_is_gone:
            with suppress(OSError):
                os.write(sys.stderr.fileno(), f"error: {self.said}; go on with --resume\n".encode())
        os._exit(2)

    def _waited(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self.left and time.monotonic() < until:
            time.sleep(0.05)
        return self.left
