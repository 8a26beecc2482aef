"""The processes of one run: what they send each other, and how all end when one of them ends.

The first process (rank 0) works alone for most of a run. The others poll a small store, without a
timeout. Each process writes a beat into the store every few seconds. If a beat stops, or if a process
reports a failure, the run ends within a minute.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from efquantface.distill.started import Started, one_device
from efquantface.distill.watch import Watch
from efquantface.errors import EfqError, RunError

_POLL = 0.05  # seconds
_WORD = 3.0  # seconds in which a failed process says why
_STOPPED = "was stopped"
_GOODBYE = 6.0  # seconds in which the others learn that the first process has failed


class Ranks:
    """A run's processes, as one of them sees them.

    Attributes:
        rank: of this process, 0 to ``count - 1``.
        count: number of processes.
        local_count: number of processes on this machine.
        device: of this process.
    """

    def __init__(self, started: Started, device: str, fabric: Fabric | None = None) -> None:
        self.rank, self.count = started.rank, started.count
        self.local_count = started.local_count
        self.device = started.device(device)
        self._fabric, self._asked = fabric, 0
        self._watch: Watch | None = None
        if self.count == 1:
            return
        # data that are not gradients are sent by the CPU
        self._group = dist.new_group(backend="gloo")
        self._store = self._connected()
        self._watch = Watch(self._client(self._store.port), self.rank, self.count)
        self._watch.start()

    @classmethod
    def join(cls, started: Started, device: str) -> Ranks:
        """Start the other processes or connect to them.

        Args:
            started: which processes there are.
            device: ``cpu``, ``cuda`` or ``cuda:1``.

        Raises:
            RunError, RuntimeMissingError: see :meth:`Started.launch`.
        """
        return cls(started, device, started.launch(device) if started.count > 1 else None)

    @property
    def first(self) -> bool:
        """Whether this is the first process, which owns the run's folder and prints the log."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is only one process."""
        return self.count == 1

    @property
    def fabric(self) -> Fabric:
        """The Fabric that training uses."""
        if self._fabric is None:
            self._fabric = one_device(self.device)
        return self._fabric

    # --- what processes send each other

    def once(self, make: Callable[[], bytes]) -> bytes:
        """Bytes that the first process makes, for all processes. The others wait without a timeout.

        Args:
            make: called in the first process only.

        Raises:
            RunError: another process has ended.
        """
        if self.alone:
            return make()
        self._asked += 1
        key = f"made/{self._asked}"
        made = make() if self.first else b""
        if self.first:
            self._store.set(key, "1")
        else:
            self._wait_for(key)
        size = torch.tensor([len(made)])
        dist.broadcast(size, 0, self._group)
        block = torch.frombuffer(bytearray(made), dtype=torch.uint8) if made else torch.empty(0)
        if not self.first:
            block = torch.empty(int(size), dtype=torch.uint8)
        if int(size):
            dist.broadcast(block, 0, self._group)
        return made if self.first else block.numpy().tobytes()

    @contextmanager
    def file(self, path: Path | None) -> Iterator[Path | None]:
        """The first process's file, for all processes: ``path`` in the first, a copy in the others.

        Only the first process looks at ``path``. If it has no file there, all get None.
        """
        if self.alone:
            yield path if path is not None and path.is_file() else None
            return
        there = self.once(lambda: b"1" if path is not None and path.is_file() else b"")
        if not there:
            yield None
            return
        data = self.once(lambda: b"" if path is None else path.read_bytes())
        if self.first:
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="efq-") as folder:
            copy = Path(folder, "copy")
            copy.write_bytes(data)
            yield copy

    def totals(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, with the same bits in each."""
        if self.alone:
            return list(values)
        mine = torch.tensor(list(values), dtype=torch.float64)
        parts = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(parts, mine, self._group)
        return [float(v) for v in torch.stack(parts).sum(dim=0)]

    def summed(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, on its device, without gradient."""
        if self.alone:
            return values
        result = values.detach().clone()
        dist.all_reduce(result)
        return result

    @property
    def share(self) -> slice:
        """This process's images of a batch: every ``count``-th."""
        return slice(self.rank, None, self.count)

    def whole(self, part: Tensor, total: int) -> Tensor:
        """The rows (total,...) of a batch, from the :attr:`share` of each process, without gradient."""
        if self.alone:
            return part
        padded = part.new_zeros(-(-total // self.count), *part.shape[1:])
        padded[: len(part)] = part.detach()
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        result = part.new_empty(total, *part.shape[1:])
        for rank, rows in enumerate(parts):
            mine = result[rank :: self.count]
            mine.copy_(rows[: len(mine)])
        return result

    def gather(self, part: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The rows of all processes, in the first process; an empty list in the others.

        Args:
            part: this process's rows (n,...), on the CPU.
            sizes: number of rows of each process, the same in all.
        """
        if self.alone:
            return [part]
        padded = part.new_zeros(max(sizes), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in range(self.count)] if self.first else None
        dist.gather(padded, parts, 0, self._group)
        return [rows[:size] for rows, size in zip(parts or [], sizes, strict=False)]

    # --- how it ends

    def check_same(self, mine: str, what: str) -> None:
        """Check that all processes have the same ``mine``.

        Args:
            mine: a text on what this process has.
            what: its name in the error.

        Raises:
            RunError: this process differs from the first.
        """
        theirs = self.once(mine.encode).decode()
        if theirs != mine:
            raise RunError(
                f"{platform.node()}: {what} here ({mine}) and in the first process ({theirs}) differ; "
                "give every machine the same files"
            )

    def lost(self, error: BaseException) -> str | None:
        """What happened to another process, if that caused ``error``; otherwise None."""
        if self._watch is None:
            return None
        broken = isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and "gloo" in str(error).lower()
        )
        stopped = isinstance(error, KeyboardInterrupt)
        until = time.monotonic() + (_WORD if broken or stopped else 0.0)
        while self._watch.said is None and time.monotonic() < until:
            time.sleep(_POLL)
        said = self._watch.said
        if said is not None and stopped and said.endswith(_STOPPED):
            return None  # Ctrl-C reaches all of them
        if said is None and broken:
            return "another process of the run has ended without a message"
        return said

    @contextmanager
    def together(self) -> Iterator[None]:
        """End all processes if one fails; the first process says why.

        Raises:
            RunError: in the first process, if another process has failed or ended.
            SystemExit: in the others, always.
        """
        if self._watch is None:
            yield
            return
        try:
            yield
        except SystemExit:
            raise
        except BaseException as error:
            self._failed(error, self._watch)
        self.leave()
        if not self.first:
            raise SystemExit(0)

    def leave(self) -> None:
        """End the work in common: the first process goes on alone, the others end.

        Raises:
            SystemExit: in all processes but the first.
        """
        if self._watch is None or self._watch.left:
            return
        self._watch.leave()
        if self.first:
            return
        raise SystemExit(0)

    def _failed(self, error: BaseException, watch: Watch) -> NoReturn:
        lost = self.lost(error)
        if lost is None and not watch.left:
            watch.tell(_in_words(error), _GOODBYE if self.first else 0.0)
        watch.leave()
        if self.first:
            if lost is not None and not isinstance(error, EfqError):
                raise RunError(f"{lost}. What was trained is kept: go on with --resume") from error
            raise error
        if lost is not None and watch.first_is_gone:
            raise RunError(lost) from error
        raise SystemExit(0 if lost is not None else 1) from None

    def _wait_for(self, key: str) -> None:
        assert self._watch is not None
        while not self._there(key):
            if self._watch.said is not None:
                raise RunError(self._watch.said)
            time.sleep(_POLL)

    def _there(self, key: str) -> bool:
        try:
            return bool(self._store.check([key]))
        except RuntimeError:
            assert self._watch is not None
            time.sleep(_WORD)  # until the watch has noticed, too
            raise RunError(self._watch.said or "the first process has ended") from None

    def _connected(self) -> TCPStore:
        """A connection to the store, which is in the first process."""
        held = self._client(0, holds=True) if self.first else None
        port = torch.tensor([0 if held is None else held.port])
        dist.broadcast(port, 0, self._group)
        return held or self._client(int(port))

    def _client(self, port: int, holds: bool = False) -> TCPStore:
        address = os.environ["MASTER_ADDR"]
        return TCPStore(address, port, is_master=holds, wait_for_workers=False)


def _in_words(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return _STOPPED
    text = str(error) if isinstance(error, EfqError) else f"{type(error).__name__}: {error}"
    return text[:2000]


ALONE = Ranks(Started(), "cpu")
