"""The report: one self-contained HTML page, without scripts or other files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from PIL import Image

from efquantface.evaluation.sets import EvalSet
from efquantface.files import write_text
from efquantface.recipe import FLOAT
from efquantface.report import figures, sentences
from efquantface.report.deploying import insightface_code, onnxruntime_code
from efquantface.report.provenance import as_yaml, without_folders
from efquantface.report.results import (
    BEST_FLOAT,
    STUDENT,
    TEACHER,
    Results,
    formatted,
    formatted_interval,
    percent,
)
from efquantface.report.verdict import GALLERY_RULE, RULE
from efquantface.text import plain

_MAX_CHANGED = 40
_STYLE = Path(__file__).with_name("style.css")


def _plain(value: object) -> object:
    """A value as the page shows it; control characters in names are escaped."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else plain(value)


def write_report(path: Path, results: Results, faces_of: Sequence[EvalSet] = ()) -> None:
    """Write the page.

    Args:
        path: the file.
        results: of the run.
        faces_of: evaluation sets whose changed pairs are shown as faces; none by default, since
            reports are shared.

    Raises:
        WriteError: it cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("efquantface.report", "."),
        autoescape=True,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        percent=percent,
        formatted=formatted,
        shown=formatted_interval,
        rule=RULE,
        gallery_rule=GALLERY_RULE,
        style=Markup(_STYLE.read_text(encoding="utf-8")),
    )
    speed, quantized = results.speed, results.recipe["bits"] != FLOAT
    protocols = [
        {
            "result": protocol,
            "roc": figures.roc(protocol) if protocol.curves.roc else "",
            "histogram": figures.histograms(protocol) if protocol.curves.roc else "",
            "changed": _changed(protocol.changed, faces_of, protocol.protocol),
        }
        for protocol in results.protocols
    ]
    page = environment.get_template("page.html.j2").render(
        results=results,
        title=results.title or f"{results.teacher}: {_bits(results)}",
        verdict=results.verdict,
        made=results.provenance,
        recipe=as_yaml(results.recipe),
        faces=without_folders(results.recipe["faces"]),
        onnxruntime=onnxruntime_code(results.contract),
        insightface=insightface_code(results.contract),
        protocols=protocols,
        portability=sentences.portability(results),
        exact_sums=sentences.exact_sums(results),
        names={"teacher": TEACHER, "best": BEST_FLOAT, "student": STUDENT},
        gains=sentences.gains(speed, integers=quantized) if speed else [],
        kept_promise=sentences.target(results),
        training=figures.training(results.history) if len(results.history.held_out) > 1 else "",
        layers=figures.layers(results.layer_errors) if results.layer_errors else "",
        pruned=figures.pruned(results.pruned) if results.pruned else "",
        allocation=figures.allocation(results.choices) if results.choices else "",
        worst=sorted(results.layer_errors, key=lambda e: -e[1])[:8],
    )
    write_text(path, page)


def _bits(results: Results) -> str:
    """What was made, for the title: bits, budget, and the share pruned."""
    bits, budget = str(results.recipe["bits"]).upper(), results.recipe["budget"]
    what = f"{bits} within {budget}" if budget else bits
    if results.pruned is None:
        return what
    share = f"{results.pruned.share:.0%} pruned"
    return share if results.recipe["bits"] == FLOAT else f"{what}, {share}"


def _changed(
    changed: list[tuple[int, int, bool, float, float]], sets: Sequence[EvalSet], protocol: str
) -> list[dict[str, object]]:
    found = next((s for s in sets if protocol == f"{s.name} pairs"), None)
    if found is None:
        return []
    return [
        {
            "a": _data_uri(found.faces.images[a]),
            "b": _data_uri(found.faces.images[b]),
            "same": same,
            "teacher": teacher,
            "student": student,
        }
        for a, b, same, teacher, student in changed[:_MAX_CHANGED]
    ]


def _data_uri(image: npt.NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
