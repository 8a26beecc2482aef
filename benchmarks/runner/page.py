"""docs/results.md and README.md: what stands between two markers is made from the rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import plots, readme, tables

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"<!-- begin (\w+) -->\n.*?<!-- end \1 -->", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page, what makes its blocks, and how long it may be."""

    path: Path
    blocks: Callable[[], dict[str, Callable[[], str]]]
    most_lines: int


PAGES = (
    Page(ROOT / "docs" / "results.md", tables.all_tables, 200),
    Page(ROOT / "README.md", readme.blocks, 110),
)


class PageError(Exception):
    """The page and what the rows make do not fit."""


def rendered(text: str, blocks: Mapping[str, str]) -> str:
    """The page with every block in its place.

    Raises:
        PageError: a marker without a block, or a block without a marker.
    """
    found = [match[1] for match in _BLOCK.finditer(text)]
    if sorted(found) != sorted(blocks):
        raise PageError(f"markers {sorted(found)} on the page, tables {sorted(blocks)}")
    return _BLOCK.sub(lambda m: f"<!-- begin {m[1]} -->\n{blocks[m[1]]}\n<!-- end {m[1]} -->", text)


def differences(text: str, blocks: Mapping[str, str]) -> list[str]:
    """The names of blocks that are not what the rows make.

    Raises:
        PageError: as :func:`rendered`.
    """
    wanted = {m[1]: m[0] for m in _BLOCK.finditer(rendered(text, blocks))}
    return [m[1] for m in _BLOCK.finditer(text) if m[0] != wanted[m[1]]]


def main(check: bool, pages: Sequence[Page] = PAGES) -> int:
    """Write pages and plots, or say what would change; the exit status."""
    wrong = []
    for page in pages:
        text = page.path.read_text(encoding="utf-8")
        blocks = {name: make() for name, make in page.blocks().items()}
        try:
            wanted = rendered(text, blocks)
        except PageError as error:
            print(f"{page.path}: {error}")
            return 1
        if not check:
            page.path.write_text(wanted, encoding="utf-8")
        names = differences(text, blocks)
        wrong += [f"{page.path}: the block {name} is not what the rows make" for name in names]
        if (lines := text.count("\n")) > page.most_lines:
            wrong.append(f"{page.path}: {lines} lines, at most {page.most_lines}")
    if not check:
        plots.draw()
        return 0
    wrong += [f"{path}: was drawn from other rows" for path in plots.stale()]
    print(
        "\n".join([*wrong, "run python -m benchmarks tables"] if wrong else ["tables: as the rows"])
    )
    return int(bool(wrong))
