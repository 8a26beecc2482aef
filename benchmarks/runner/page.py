"""docs/results.md: what stands between two markers is made from the rows, the rest by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
MOST_LINES = 200
_BLOCK = re.compile(r"<!-- begin (\w+) -->\n.*?<!-- end \1 -->", re.DOTALL)


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


def main(check: bool, page: Path = PAGE) -> int:
    """Write page and plots, or say what would change; the exit status."""
    from . import plots
    from .tables import all_tables

    text = page.read_text(encoding="utf-8")
    blocks = {name: make() for name, make in all_tables().items()}
    try:
        wanted = rendered(text, blocks)
    except PageError as error:
        print(f"{page}: {error}")
        return 1
    if not check:
        page.write_text(wanted, encoding="utf-8")
        plots.draw()
        return 0
    wrong = [
        f"{page}: the table {name} is not what the rows make" for name in differences(text, blocks)
    ]
    wrong += [f"{path}: was drawn from other rows" for path in plots.stale()]
    if text.count("\n") > MOST_LINES:
        wrong.append(f"{page}: {text.count(chr(10))} lines, at most {MOST_LINES}")
    print(
        "\n".join([*wrong, "run python -m benchmarks tables"] if wrong else ["tables: as the rows"])
    )
    return int(bool(wrong))
