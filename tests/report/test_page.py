"""The page stands alone, and shows faces only when it is given them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from torch import nn

from conftest import make_faces
from efquantface import compress
from efquantface.contract import FaceContract
from efquantface.evaluation.sets import EvalSet, Pairs
from efquantface.report.page import write_report


class Balanced(HTMLParser):
    """Counts tags that are opened and not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report(tmp_path: Path, network: nn.Module, contract: FaceContract) -> None:
    faces = make_faces()
    a = np.arange(0, 48, 2)
    same = np.arange(24) % 2 == 0
    b = np.where(same, a + 1, (a + 6) % 48)
    people = EvalSet("mine <&>", faces, Pairs(a, b, same, np.arange(24) % 4), True)
    done = compress(
        network, make_faces(seed=1), tmp_path / "run", contract=contract, eval_sets=[people],
        epochs=1, batch_size=8, cache=False, benchmark=False, quiet=True,
        caveat="a caveat & more",
    )  # fmt: skip
    page = (tmp_path / "run" / "report.html").read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "a caveat &amp; more" in page
    assert "mine &lt;&amp;&gt; pairs" in page
    assert page.count("<svg") == 6  # two protocols with two figures each, training, layers
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page.replace('xlink:href="#', 'href="#'))
    assert "data:image/jpeg" not in page

    done.results.protocols[0].changed = [(0, 1, True, 0.5, 0.3)]
    write_report(tmp_path / "faces.html", done.results, [people])
    assert (tmp_path / "faces.html").read_text().count("data:image/jpeg") == 2
    write_report(tmp_path / "plain.html", done.results)
    assert "data:image/jpeg" not in (tmp_path / "plain.html").read_text()

    assert done.results.as_dict()["verdict"]["headline"] in page
    assert str(tmp_path) not in page
    card = done.run.card.read_text()
    assert card.startswith("---\nlicense: other\n")
    assert done.results.as_dict()["verdict"]["headline"] in card
    assert "portable: yes, the same integers on every processor" in page
    assert "a plain <code>InferenceSession</code>" in page
    assert done.results.processor in page
    assert "<h2>Speed</h2>" not in page

    assert "minutes on" not in page
    done.results.history.device = "GPU of a test"
    write_report(tmp_path / "gpu.html", done.results)
    assert "minutes on GPU of a test" in (tmp_path / "gpu.html").read_text()
