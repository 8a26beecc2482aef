"""What a user sees of a run: sentences, progress bars with the time left, and a log.

Sentences also go to ``logging.getLogger("efquantface")``, progress to callbacks.
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
_LOG_SHARE = 10  # lines that a bar writes to the log, at most
_logger = logging.getLogger("efquantface")
_logger.addHandler(logging.NullHandler())
_verbosity = NORMAL


class Advance(Protocol):
    """A function that is called with what is done, of how much, and a note."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def set_verbosity(level: int) -> None:
    """Set how much every new console of the process prints.

    Args:
        level: -1 for nothing, 0 for sentences and progress bars, 1 for details, too.

    Raises:
        ValueError: it is another level.

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
    """Prints to the terminal unless quiet, and appends to a log file where there is one."""

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
        """Append to ``path`` from now on, beginning with all sentences so far."""
        self.path = path
        waiting, self._waiting = "".join(self._waiting), []
        self._append(waiting)

    def log(self, text: str) -> None:
        """Print and log a sentence."""
        text = plain(text)
        self.rich.print(Text(text))
        _logger.info("%s", text)
        self._write(text)

    def warn(self, text: str) -> None:
        """Print and log a warning."""
        text = plain(text)
        self.rich.print(Text.assemble(("warning:", "yellow"), " ", text))
        _logger.warning("%s", text)
        self._write(f"warning: {text}")

    def detail(self, text: str) -> None:
        """Log a sentence; print it where the console is verbose."""
        text = plain(text)
        if self._verbose:
            self.rich.print(Text(text, "dim"))
        _logger.debug("%s", text)
        self._write(text)

    def step(self, step: int, total: int, loss: float) -> None:
        """Report a training step to callbacks."""
        for callback in self.callbacks:
            callback.on_step(step, total, loss)

    def metrics(self, name: str, values: Mapping[str, float]) -> None:
        """Report metrics to callbacks."""
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
        """A progress bar; yields a function (done, total, note) to call."""
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
            if progress.tasks[0].total is None:  # it was never advanced: show it as done
                progress.update(task, completed=1, total=1)

    def _write(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
        if self.path is None:
            self._waiting.append(line)
        else:
            self._append(line)

    def _append(self, text: str) -> None:
        """Append to the log; a log that cannot be written does not end the run."""
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
    """The stage that a run is in, and the seconds that are left.

    Attributes:
        names: all stages, in order; empty where there is only one.
        expected: seconds of stages by name, where known.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.expected: dict[str, float] = {}
        self._at, self._began = -1, 0.0

    def enter(self, name: str) -> str:
        """Begin a stage; returns its label."""
        self._at, self._began = (
            self.names.index(name) if name in self.names else -1,
            time.monotonic(),
        )
        return self.label

    @property
    def label(self) -> str:
        """The stage's number, for example ``4/9 ``; empty outside of stages."""
        return "" if self._at < 0 else f"{self._at + 1}/{len(self.names)} "

    def left(self, bar: float | None) -> float | None:
        """Seconds until the run's end, or None while those of a later stage are not known.

        Args:
            bar: seconds until the end of the shown bar, where known.
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
    """The time left of the whole run, or of the bar while the run's is not known."""

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
