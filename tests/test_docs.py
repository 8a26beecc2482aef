"""The documents: the map names what is there, the README is a page, pictures have words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from project import PYPROJECT, ROOT

PACKAGE = ROOT / "src" / "efquantface"
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = set(re.findall(r"`([a-z_]+)/?`", TEXT[: TEXT.index("## Decisions")]))


def test_every_room_is_on_the_map() -> None:
    there = {
        p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    assert there - {"__init__", "__main__"} <= ROOMS


def test_every_room_has_a_layer() -> None:
    (contract,) = PYPROJECT["tool"]["importlinter"]["contracts"]
    layers = {
        name for line in contract["layers"] for name in re.findall(r"efquantface\.(\w+)", line)
    }
    there = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert there <= layers <= ROOMS | {"__main__"}


def test_files_that_decisions_name_exist() -> None:
    named = set(re.findall(r"`([a-z_]+/[a-z_/]+(?:\.py)?)`", TEXT))
    assert len(named) > 5
    missing = [n for n in named if not any((PACKAGE / f).exists() for f in (n, f"{n}.py"))]
    assert missing == []


def names(requirements: list[str]) -> set[str]:
    """Package names, without this project's own."""
    return {re.split(r"[^\w-]", r)[0].lower() for r in requirements} - {"efquantface"}


def test_every_dependency_has_its_reason() -> None:
    """The table's rows stand under the extra that brings the package."""
    wanted = {"base": names(PYPROJECT["project"]["dependencies"])}
    wanted |= {k: names(v) for k, v in PYPROJECT["project"]["optional-dependencies"].items()}
    found: dict[str, set[str]] = {}
    table = TEXT[TEXT.index("## Dependencies") :]
    for extra, packages in re.findall(r"^\|([^|]*)\| ([^|]+) \|", table, re.MULTILINE)[1:]:
        extra = extra.strip(" `") or list(found)[-1]
        found.setdefault(extra, set()).update(packages.lower().split(", "))
    assert found == wanted


def test_the_readme_is_a_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 110
    assert text.count("<!-- begin bits -->") == text.count("<!-- end bits -->") == 1


def test_every_picture_is_there_and_has_words() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = [
        (page.parent / path, words)
        for page in pages
        for words, path in re.findall(
            r"!\[(.*?)\]\(([^)]+)\)", page.read_text(encoding="utf-8"), re.DOTALL
        )
    ]
    assert len(shown) >= 5
    assert [str(path) for path, words in shown if not words or not path.is_file()] == []


def test_drawings_say_what_they_show() -> None:
    """An SVG of our own has a title and a description for those who do not see it."""
    for name in ("method", "quantizers", "prelu", "thresholds"):
        text = (ROOT / "docs" / "images" / f"{name}.svg").read_text(encoding="utf-8")
        assert re.search(r"<title id=\"t\">.+</title>\n<desc id=\"d\">.+</desc>", text)


@pytest.mark.parametrize("broken", [False, True])
def test_the_site_fails_on_a_link_that_leads_nowhere(tmp_path: Path, broken: bool) -> None:
    """With the options of ``make site``: some of mkdocs's silence the warnings that strict counts."""
    pytest.importorskip("mkdocs")
    (command,) = re.findall(r"mkdocs (build .*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    page = "[there](index.md)" if not broken else "[nowhere](gone.md)"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n{page}\n", encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text("site_name: small\ntheme: mkdocs\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) == broken, done.stderr
