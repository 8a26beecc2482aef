"""A target of fuzzing: a reader, files that it reads, and how they are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from efquantface.errors import EfqError
from fuzz.mutate import mutate_bytes, mutate_text

Files = dict[str, bytes]  # bytes by path in a folder
_TEXTS = (".txt", ".csv", ".yaml", ".json", ".idx", ".lst")


def any_file(files: Files, draw: Random) -> Files:
    """The files with one changed: a text mostly by words, any other by bytes."""
    name = draw.choice(sorted(files))
    text = name.endswith(_TEXTS) and draw.random() < 0.8
    return {**files, name: (mutate_text if text else mutate_bytes)(files[name], draw)}


@dataclass(frozen=True)
class Target:
    """A reader under fuzzing.

    Attributes:
        name: in reports and ids.
        seeds: makes valid inputs with the project's own writers, the same ones at each call.
        read: reads a folder's files. Raises ``typed`` for an input that it refuses, ``AssertionError``
            for a wrong result.
        mutate: changes an input; draws only from the given ``Random``.
        short: number of inputs that each commit is checked with.
        seconds: processor time of one input, at most.
        megabytes: address space of reading, at most, in addition to the process's own.
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
    """All files of a folder, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_files(files: Files, folder: Path) -> None:
    """Write files into a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
