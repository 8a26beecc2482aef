"""What is fuzzed: a reader, the files that it is known to read, and how they are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from efquantface.errors import EfqError
from fuzz.mutate import mutate_bytes, mutate_text

Files = dict[str, bytes]  # by their paths in a folder
_TEXTS = (".txt", ".csv", ".yaml", ".json", ".idx", ".lst")


def any_file(files: Files, draw: Random) -> Files:
    """One of the files changed: texts mostly word by word, others byte by byte."""
    name = draw.choice(sorted(files))
    text = name.endswith(_TEXTS) and draw.random() < 0.8
    return {**files, name: (mutate_text if text else mutate_bytes)(files[name], draw)}


@dataclass(frozen=True)
class Target:
    """A reader under fuzzing.

    Attributes:
        name: what reports and ids call it.
        seeds: makes whole inputs with the project's own writers; the same ones whenever it is called.
        read: reads a folder's files; raises ``typed`` for what it refuses, ``AssertionError`` for a
            result that is not right.
        mutate: an input changed; draws from ``Random`` alone.
        short: inputs of the share that every commit is checked with.
        seconds: processor time that one input may take.
        megabytes: address space that reading may take beside what the process has.
        typed: the errors that are right.
    """

    name: str
    seeds: Callable[[Path], list[Files]]
    read: Callable[[Path], None]
    mutate: Callable[[Files, Random], Files] = any_file
    short: int = 1000
    seconds: float = 5.0
    megabytes: int = 1024
    typed: tuple[type[Exception], ...] = (EfqError,)


def files_of(folder: Path) -> Files:
    """All files of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_files(files: Files, folder: Path) -> None:
    """Put files into a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
