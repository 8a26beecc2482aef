"""Code blocks of the documents, and how they are checked.

A block runs unless the line above it says otherwise:

- ``<!-- parsed: REASON -->``: every ``efq`` line is parsed by the real command line.
- ``<!-- unchecked: REASON -->``: nothing is done; the reason is listed by a test.

Dated notes in ``docs/experiments`` hold the commands of their day, and are no documents in this sense.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from project import ROOT

_FENCE = re.compile(
    r"(?:^ *<!-- (?P<mark>\w+): (?P<reason>.+?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_ASSIGNED = re.compile(r"[A-Za-z_]\w*=")
_ENDS = {"|", "||", "&&", ";", ":::", ">"}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, what it holds, and how it is checked."""

    page: str
    line: int
    language: str
    text: str
    mark: str
    reason: str

    @property
    def place(self) -> str:
        """Page and line."""
        return f"{self.page}:{self.line}"

    def lines(self) -> list[list[str]]:
        """The words of each command of a shell block, without comments."""
        whole = self.text.replace("\\\n", " ").splitlines()
        return [words for line in whole if (words := shlex.split(line, comments=True))]


def pages() -> list[str]:
    """Every document, by its path in the repository."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    names = sorted(path.relative_to(ROOT).as_posix() for path in found)
    return [name for name in names if not name.startswith("docs/experiments/")]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("text")),
            found["language"],
            _dedented(found["text"], len(found["indent"])),
            found["mark"] or "",
            found["reason"] or "",
        )
        for found in _FENCE.finditer(text)
    ]


def efq_commands(words: list[str]) -> list[list[str]]:
    """The arguments of every ``efq`` in a command: behind a launcher, or quoted for one."""
    found = []
    for index, word in enumerate(words):
        if word.startswith("efq "):
            found += efq_commands(shlex.split(word))
        started = word == "efq" or words[index - 1 : index + 1] == ["-m", "efquantface"]
        if started:
            rest = words[index + 1 :]
            ends = [i for i, other in enumerate(rest) if other in _ENDS]
            found.append(rest[: min(ends, default=len(rest))])
    return found


def without_assignments(words: list[str]) -> list[str]:
    """A command without the variables set in front of it."""
    while words and _ASSIGNED.match(words[0]):
        words = words[1:]
    return words


def expanded(words: list[str], folder: Path) -> list[str]:
    """Words with patterns replaced by the files they match, as a shell does."""
    made: list[str] = []
    for word in words:
        matches = sorted(folder.glob(word)) if "*" in word and "://" not in word else []
        made += [str(path.relative_to(folder)) for path in matches] or [word]
    return made


def _dedented(text: str, spaces: int) -> str:
    return "".join(line[spaces:] if line.strip() else line for line in text.splitlines(True))
