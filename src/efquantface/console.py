"""What a user sees while a run works: sentences, progress bars with the time left, and a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Advance(Protocol):
    """Called with what is done, of how much, and a note."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


_LOG_SHARE = 10  # a bar leaves so many lines in the log


class Console:
    """Prints to the terminal (unless quiet) and appends to a log file, once there is one."""

    def __init__(self, quiet: bool = False) -> None:
        self.rich = RichConsole(quiet=quiet, highlight=False, soft_wrap=True)
        self.log: Path | None = None
        self._waiting: list[str] = []

    def log_to(self, path: Path) -> None:
        """Append to ``path`` from now on, and first what was said until now."""
        self.log = path
        with path.open("a", encoding="utf-8") as stream:
            stream.writelines(self._waiting)
        self._waiting.clear()

    def say(self, text: str) -> None:
        """One sentence, to the terminal and the log."""
        self.rich.print(text, markup=False)
        self._write(text)

    def warn(self, text: str) -> None:
        """A sentence that asks for attention."""
        self.rich.print(f"[yellow]warning:[/yellow] {_escaped(text)}")
        self._write(f"warning: {text}")

    @contextmanager
    def bar(self, what: str) -> Iterator[Advance]:
        """A progress bar; yields a function (done, total) to call."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.rich, transient=False) as progress:
            task = progress.add_task(what, total=None, note="")
            logged = 0

            def advance(done: int, total: int, note: str = "") -> None:
                nonlocal logged
                progress.update(task, completed=done, total=total, note=note)
                share = done * _LOG_SHARE // max(total, 1)
                if share > logged:
                    logged = share
                    self._write(f"{what}: {done} of {total} {note}".rstrip())

            yield advance
            if progress.tasks[0].total is None:  # what cannot say how far it is has come to its end
                progress.update(task, completed=1, total=1)

    def _write(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
        if self.log is None:
            self._waiting.append(line)
        else:
            with self.log.open("a", encoding="utf-8") as stream:
                stream.write(line)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
