"""Runs targets in child processes. A crash or a hang costs one input and is reported with its id."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from fuzz.guard import TooLong, Watch, limit_memory, limited
from fuzz.target import Files, Target, write_files

RIGHT, TYPED = "right", "typed error"
_STUCK = 20.0  # times an input's processor time limit, after which its process is killed
_CRASHES = 20  # of one target, after which it is abandoned


@dataclass
class Outcome:
    """The outcome of a target's inputs.

    Attributes:
        tried: number of inputs.
        kinds: number of inputs by outcome: read right, refused, or a failure.
        failures: ids of failed inputs, by what happened.
        slowest: processor seconds of the slowest input.
        peak: resident memory of the largest process, in MB.
    """

    name: str
    tried: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    slowest: float = 0.0
    peak: int = 0

    def lines(self) -> Iterator[str]:
        """One line to print, and one for each kind of failure."""
        right, typed = self.kinds[RIGHT], self.kinds[TYPED]
        failed = sum(map(len, self.failures.values()))
        yield (
            f"{self.name:>12}: {self.tried:>9,} tried, {right:>9,} right, {typed:>9,} typed errors, "
            f"{failed} failures; slowest {self.slowest:.2f} s, peak {self.peak} MB"
        )
        for what, ids in sorted(self.failures.items(), key=lambda item: -len(item[1])):
            yield f"{'':>14}{len(ids)} x {what}   replay: {', '.join(ids[:3])}"


def run(target: Target, seed: int, inputs: int | None, seconds: float | None) -> Outcome:
    """Try one input after the other, up to a number of inputs or seconds."""
    outcome = Outcome(target.name)
    end = None if seconds is None else time.monotonic() + seconds
    following, crashes = 0, 0
    while (inputs is None or following < inputs) and (end is None or time.monotonic() < end):
        following, crashed = _child(target, seed, following, inputs, end, outcome)
        crashes += crashed
        if crashes == _CRASHES:
            break
    return outcome


def _child(
    target: Target, seed: int, start: int, stop: int | None, end: float | None, outcome: Outcome
) -> tuple[int, bool]:
    """Run one process from input ``start`` on; returns the next input, and whether the process broke."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    current: Any = context.Value("q", start)
    with _folder() as folder:
        process = context.Process(
            target=_work, args=(target, seed, start, stop, end, folder, theirs, current)
        )
        process.start()
        theirs.close()
        seen, since, done = start, time.monotonic(), False
        while not done:
            if ours.poll(0.5):
                try:
                    done = _take(ours.recv(), outcome)
                except EOFError:
                    break
            if current.value != seen:
                seen, since = current.value, time.monotonic()
            elif time.monotonic() - since > target.seconds * _STUCK + 30:
                process.kill()
                break
        process.join()
    if done:
        return current.value, False
    what = "process stuck" if process.exitcode == -9 else f"process ended ({process.exitcode})"
    outcome.failures[what].append(ident(target, seed, current.value))
    outcome.tried += 1
    return current.value + 1, True


def _take(message: tuple[str, Any], outcome: Outcome) -> bool:
    """Add a child's message to the outcome; True for its last message."""
    kind, content = message
    if kind == "broken":
        raise RuntimeError(f"{outcome.name}: its seeds are not read\n{content}")
    if kind == "failure":
        what, where = content
        outcome.failures[what].append(where)
        return False
    kinds, slowest, peak = content
    outcome.kinds.update(kinds)
    outcome.tried += sum(kinds.values())
    outcome.slowest, outcome.peak = max(outcome.slowest, slowest), max(outcome.peak, peak)
    return kind == "done"


def _work(
    target: Target,
    seed: int,
    start: int,
    stop: int | None,
    end: float | None,
    folder: Path,
    pipe: Connection,
    current: Any,
) -> None:
    """The child process: reads inputs under limits and reports their outcomes."""
    _silence()
    try:
        reader = Reader(target, folder)
    except BaseException:
        pipe.send(("broken", traceback.format_exc()))
        raise SystemExit(1) from None
    kinds: Counter[str] = Counter()
    slowest, said, number = 0.0, time.monotonic(), start
    while (stop is None or number < stop) and (end is None or time.monotonic() < end):
        current.value = number
        before = time.process_time()
        kind = reader.outcome(reader.files(seed, number))
        slowest = max(slowest, time.process_time() - before)
        if kind in (RIGHT, TYPED):
            kinds[kind] += 1
        else:
            kinds["failure"] += 1
            pipe.send(("failure", (kind, ident(target, seed, number))))
        number += 1
        if time.monotonic() - said > 1:
            pipe.send(("some", (kinds, slowest, _resident())))
            kinds, said = Counter(), time.monotonic()
    current.value = number
    pipe.send(("done", (kinds, slowest, _resident())))


class Reader:
    """A target with its seeds, in the process that reads."""

    def __init__(self, target: Target, folder: Path, limits: bool = True) -> None:
        """Make the seeds, read each once so that late imports are done, and set the limits.

        Raises:
            AssertionError: a seed is not read.
        """
        self.target, self.folder = target, folder
        os.environ["EFQ_CACHE"] = str(folder / "cache")
        made = folder / "seeds"
        made.mkdir()
        self.seeds = target.seeds(made)
        shutil.rmtree(made)
        self.place = folder / "input"
        for files in self.seeds:
            write_files(files, self.place)
            target.read(self.place)
            shutil.rmtree(self.place)
        self.watch = Watch(folder)
        if limits:
            limit_memory(target.megabytes)

    def files(self, seed: int, number: int) -> Files:
        """Input ``number``, the same for the same seed."""
        draw = Random(f"{self.target.name}:{seed}:{number}")
        return self.target.mutate(dict(draw.choice(self.seeds)), draw)

    def outcome(self, files: Files) -> str:
        """``RIGHT``, ``TYPED``, or what went wrong."""
        try:
            write_files(files, self.place)
            with limited(self.target.seconds), self.watch.watching():
                self.target.read(self.place)
            kind = RIGHT
        except self.target.typed as error:
            kind = TYPED if str(error) else f"an error without words ({type(error).__name__})"
        except TooLong:
            kind = f"more than {self.target.seconds:g} s"
        except Exception as error:
            kind = signature(error)
        finally:
            shutil.rmtree(self.place, ignore_errors=True)
        return f"touched {self.watch.seen[0]}" if self.watch.seen else kind


def ident(target: Target, seed: int, number: int) -> str:
    """The id by which an input can be replayed."""
    return f"{target.name}:{seed}:{number}"


def signature(error: Exception) -> str:
    """An error's type and place, which is the same for inputs that fail alike."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f"{os.sep}efquantface{os.sep}" in f.filename] or frames
    where = f"{own[-1].filename.rpartition('efquantface/')[2]}:{own[-1].lineno}"
    said = re.sub(r"\d+", "N", str(error).replace("\n", " "))[:60]
    return f"{type(error).__name__} at {where} by {frames[-1].name}: {said}"


def _silence() -> None:
    """Drop the warnings of decoders: there are thousands."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder, in memory where possible."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="efq-fuzz-", dir=shared if os.access(shared, os.W_OK) else None
    ) as folder:
        yield Path(folder)
