"""Measured rows: a line of JSON each, in ``benchmarks/results/SUITE.jsonl``.

Every row has ``commit`` and ``commit_is`` (``made by``, or where only that is known ``added the row``,
or ``added the row to docs``: a table of the documentation was all there was), ``date``, ``processor``,
``packages`` and ``command``; ``added`` is the date of a commit that added the row. What was not recorded
is null. A student's row has also:

* ``network``, ``name``, ``seed``, ``faces`` (the training set's name), ``kind`` (of processor, in suites
  that are run on several) and ``recipe`` (``digest.recipe_digest``);
* ``epochs``, ``batch``, ``images``, ``minutes``, ``trained_on``, ``held_out`` (1 - cosine before and
  after), ``mb``, ``int8`` (integer convolutions of all), ``macs`` (teacher's, student's);
* ``lfw`` and ``judge``: ``flags``, ``pairs`` (genuine, impostor), ``cosine``, and for each metric
  ``[teacher, student, loss, low, high]``, shares of 1 with the loss's paired 95 % interval;
* ``speed``: by runtime and batch the milliseconds of the ``user``'s file, the best ``float`` form and
  the ``student``; ``speed_on`` the processor, ``speed_date``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

RESULTS = Path(__file__).parents[1] / "results"
KEY = ("network", "name", "seed", "faces", "kind")
MADE, ADDED, IN_DOCS = "made by", "added the row", "added the row to docs"
_PACKAGES = ("onnxruntime", "openvino", "torch")
_DIGITS = 6


def file_of(suite: str, folder: Path | None = None) -> Path:
    """Where a suite's rows lie: in ``benchmarks/results``, or another folder."""
    return (folder or RESULTS) / f"{suite}.jsonl"


def read(suite: str, folder: Path | None = None) -> list[Row]:
    """All rows of a suite; none where it has no file yet."""
    path = file_of(suite, folder)
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def key_of(row: Row) -> tuple[Any, ...]:
    """What a newer row of the same measurement has in common with an older one."""
    return tuple(row.get(field) for field in KEY)


def keep(suite: str, row: Row, folder: Path | None = None) -> None:
    """Add a row in place of the one with its key. The file is replaced whole."""
    kept = [old for old in read(suite, folder) if key_of(old) != key_of(row)]
    write(suite, [*kept, row], folder)


def write(suite: str, rows: Iterable[Row], folder: Path | None = None) -> None:
    """Write a suite's rows, sorted by their keys."""
    path = file_of(suite, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(rows, key=lambda row: [str(part) for part in key_of(row)])
    temporary = path.with_suffix(".partial")
    lines = [json.dumps(rounded(row), separators=(",", ":")) for row in ordered]
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    temporary.replace(path)


def rounded(value: Any) -> Any:
    """Plain data with six digits behind the point."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return value


def stamp() -> Row:
    """Which code, when, on which processor, with which versions and by which command."""
    from efquantface.runtime.environment import environment

    from .command import command_line

    found = environment()
    return {
        "commit": commit(),
        "commit_is": MADE,
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{found['processor']} ({', '.join(found['instruction_sets'])})",
        "packages": {name: found["packages"].get(name) for name in _PACKAGES},
        "command": command_line(sys.argv),
    }


def commit() -> str | None:
    """This code's commit, with ``+`` where ``src`` is changed; None outside a repository."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        return name + ("+" if _git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    found = subprocess.run(
        ["git", "-C", str(RESULTS.parents[1]), *words], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()
