"""The report in a browser: it fits, light and dark, and everybody can read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chromium import CHROMIUM, Browser, Page, npm_packages
from conftest import SIZE, SmallFaceNet, make_faces, randomize
from efquantface import compress
from efquantface.contract import FaceContract
from efquantface.evaluation.sets import EvalSet

AXE = (("axe-core", "4.14.1"),)
READY = "document.readyState === 'complete' && document.querySelector('#verdict') !== null"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with people, speed and training."""
    contract = FaceContract(height=SIZE, width=SIZE, embedding_size=16, template="unknown")
    done = compress(
        randomize(SmallFaceNet()),
        make_faces(seed=1),
        tmp_path_factory.mktemp("run") / "run",
        contract=contract,
        eval_sets=[EvalSet("people", make_faces(40, 6), None, True)],
        epochs=1,
        batch_size=8,
        prune=0.1,
        bits="w8a8",
        round_to=2,
        cache=False,
        quiet=True,
    )
    return done.run.report


@pytest.fixture(scope="module")
def page(report: Path) -> Iterator[Page]:
    browser = Browser()
    opened = browser.page()
    opened.go(report.as_uri(), READY)
    yield opened
    browser.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_it_fits(page: Page, width: int, dark: bool) -> None:
    """No page wider than the window, and the loss within it; grounds follow the scheme."""
    page.looks(width, dark=dark)
    assert page.js("document.documentElement.scrollWidth") <= width
    right = page.js(
        "Math.max(...[...document.querySelectorAll('td:last-child')]"
        ".map((cell) => cell.getBoundingClientRect().right))"
    )
    assert 0 < right <= width
    light = page.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light is not dark
    ink = page.js("getComputedStyle(document.querySelector('svg')).color")
    assert ink == page.js("getComputedStyle(document.body).color")  # of axes and letters


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_nobody_is_left_out(page: Page, width: int, dark: bool) -> None:
    try:
        packages = npm_packages(AXE)
    except RuntimeError as error:
        pytest.skip(str(error))
    page.looks(width, dark=dark)
    page.js((packages / "axe-core" / "axe.min.js").read_text(encoding="utf-8") + "; true")
    found = page.js(
        "axe.run().then((r) => r.violations.map((v) => `${v.id}: ${v.nodes[0].html}`.slice(0, 300)))"
    )
    assert found == []


def test_it_asks_for_nothing(page: Page, report: Path) -> None:
    assert set(page.requests) == {report.as_uri()}
    assert page.problems == []
