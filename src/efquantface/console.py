"""What a user sees while a run works: sentences, progress bars with the time left, and a log.

Every sentence also goes to ``logging.getLogger("efquantface")``; progress goes to callbacks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from efquantface.callbacks import Callback
from efquantface.errors import WriteError
from efquantface.files import append_text
from efquantface.text import plain

QUIET, NORMAL, VERBOSE = -1, 0, 1
_LOG_SHARE = 10  # a bar leaves so many lines in the log
_logger = logging.getLogger("efquantface")
_logger.addHandler(logging.NullHandler())
_verbosity = NORMAL


class Advance(Protocol):
    """Called with what is done, of how much, and a note."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def set_verbosity(level: int) -> None:
    """How much every new console prints, in the whole process.

    Args:
        level: -1 nothing, 0 sentences and progress bars, 1 details, too.

    Raises:
        ValueError: another level.

    Example:
        >>> set_verbosity(-1)
        >>> Console().log("not seen")
        >>> set_verbosity(0)
    """
    global _verbosity
    if level not in (QUIET, NORMAL, VERBOSE):
        raise ValueError(f"verbosity {level}: -1, 0 and 1 are known")
    _verbosity = level


class Console:
    """Prints to the terminal (unless quiet) and appends to a log file, once there is one."""

    def __init__(self, quiet: bool = False, callbacks: Sequence[Callback] = ()) -> None:
        level = QUIET if quiet else _verbosity
        self.rich = RichConsole(
            quiet=level < NORMAL, highlight=False, soft_wrap=True, markup=False, emoji=False
        )
        self.callbacks = tuple(callbacks)
        self.stages = Stages()
        self.path: Path | None = None
        self._verbose = level >= VERBOSE
        self._waiting: list[str] = []
        self._lost = False

    def log_to(self, path: Path) -> None:
        """Append to ``path`` from now on, and first what was said until now."""
        self.path = path
        waiting, self._waiting = "".join(self._waiting), []
        self._append(waiting)

    def log(self, text: str) -> None:
        """One sentence."""
        text = plain(text)
        self.rich.print(Text(text))
        _logger.info("%s", text)
        self._write(text)

    def warn(self, text: str) -> None:
        """A sentence that asks for attention."""
        text = plain(text)
        self.rich.print(Text.assemble(("warning:", "yellow"), " ", text))
        _logger.warning("%s", text)
        self._write(f"warning: {text}")

    def detail(self, text: str) -> None:
        """A sentence for the log; the terminal shows it where it is to be verbose."""
        text = plain(text)
        if self._verbose:
            self.rich.print(Text(text, "dim"))
        _logger.debug("%s", text)
        self._write(text)

    def step(self, step: int, total: int, loss: float) -> None:
        """Tell callbacks of a training step."""
        for callback in self.callbacks:
            callback.on_step(step, total, loss)

    def metrics(self, name: str, values: Mapping[str, float]) -> None:
        """Tell callbacks of numbers."""
        for callback in self.callbacks:
            callback.on_metrics(name, values)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage of the run; bars in it carry its number."""
        label, began = self.stages.enter(name), time.monotonic()
        self.detail(f"{label}{name}")
        yield
        self.detail(f"{label}{name}: {time.monotonic() - began:.1f} s")

    @contextmanager
    def bar(self, what: str) -> Iterator[Advance]:
        """A progress bar; yields a function (done, total) to call."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _Left(self.stages),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self.rich, transient=False) as progress:
            task = progress.add_task(plain(f"{self.stages.label}{what}"), total=None, note="")
            logged = 0

            def advance(done: int, total: int, note: str = "") -> None:
                nonlocal logged
                progress.update(task, completed=done, total=total, note=note)
                for callback in self.callbacks:
                    callback.on_stage(what, done, total)
                share = done * _LOG_SHARE // max(total, 1)
                if share > logged:
                    logged = share
                    self._write(plain(f"{what}: {done} of {total} {note}".rstrip()))

            yield advance
            if progress.tasks[0].total is None:  # what cannot say how far it is has come to its end
                progress.update(task, completed=1, total=1)

    def _write(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
        if self.path is None:
            self._waiting.append(line)
        else:
            self._append(line)

    def _append(self, text: str) -> None:
        """Add to the log; a log that cannot be written ends no run."""
        if self.path is None or self._lost:
            return
        try:
            append_text(self.path, text)
        except WriteError as error:
            self._lost = True
            self.rich.print(
                Text.assemble(("warning:", "yellow"), plain(f" no log from here on: {error}"))
            )


class Stages:
    """Where a run is, and how long the rest of it will take.

    Attributes:
        names: all stages, in order; empty where there is only one.
        expected: seconds of a stage, where they can be told.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.expected: dict[str, float] = {}
        self._at, self._began = -1, 0.0

    def enter(self, name: str) -> str:
        """Go on to a stage; returns its label."""
        self._at, self._began = (
            self.names.index(name) if name in self.names else -1,
            time.monotonic(),
        )
        return self.label

    @property
    def label(self) -> str:
        """For example ``4/9 ``; empty outside of stages."""
        return "" if self._at < 0 else f"{self._at + 1}/{len(self.names)} "

    def left(self, bar: float | None) -> float | None:
        """Seconds until the run's end, or None while a later stage's are not known.

        Args:
            bar: seconds until the end of the bar that is shown, where known.
        """
        if self._at < 0:
            return bar
        later = self.names[self._at + 1 :]
        here = self.expected.get(self.names[self._at])
        rest = None if here is None else max(here - (time.monotonic() - self._began), 0.0)
        now = [seconds for seconds in (bar, rest) if seconds is not None]
        if not now or any(name not in self.expected for name in later):
            return None
        return max(now) + sum(self.expected[name] for name in later)


class _Left(ProgressColumn):
    """Time left of the whole run, or of what the bar shows while the rest is not known."""

    max_refresh = 0.5

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        self.stages = stages

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text("")
        whole = self.stages.left(task.time_remaining)
        if whole is not None:
            return Text(f"{_clock(whole)} left", "cyan")
        if task.time_remaining is None:
            return Text("")
        return Text(f"{_clock(task.time_remaining)} left of this", "cyan")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
