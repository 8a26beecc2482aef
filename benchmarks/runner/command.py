"""The command of a row, as a reader repeats it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def command_line(words: Sequence[str] | None = None) -> str:
    """This process's command (or ``words``), without the folders that only this machine has."""
    first, *rest = words or sys.argv
    path = Path(first)
    start = f"-m {path.parent.name}" if path.name == "__main__.py" else _shared(first)
    return " ".join(["python", start, *(_shared(word) for word in rest)])


def _shared(word: str) -> str:
    """A word; an absolute path in it keeps its name, and that of a file's folder."""
    name, equals, path = word.rpartition("=")
    if not path.startswith("/"):
        return word
    kept = Path(path).parts[-2 if Path(path).suffix else -1 :]
    return f"{name}{equals}{'/'.join(kept)}"
