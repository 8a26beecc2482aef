"""Plots of the rows. A picture carries the digest of what it was drawn from: a check is quick."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from .groups import Group, grouped
from .suites import BITS
from .tables import speed_of

IMAGES = Path(__file__).parents[2] / "docs" / "images"
_COLOURS = {
    "y1": "#0b7285",
    "foamliu_mobilefacenet": "#2b8a3e",
    "mobileface2": "#e8a33d",
    "dlib": "#7048a8",
}
_LEAST = 0.05  # what is lost less is drawn here
_KEY = "Rows"
Point = tuple[float, float, str, str, str]  # speed, loss, network, mark, words


def by_bits() -> list[Point]:
    """Loss of TAR@1e-4 against speed in ONNX Runtime: ours by bits, and the peers."""
    ours, found = grouped("bits"), []
    for g in ours:
        if g.name in BITS:
            found += _point(g, speed_of(g, ours, "onnxruntime"), "o", g.name)
    for g in grouped("peers"):
        found += _point(g, g.times("onnxruntime", 1), "x", g.name.removeprefix("quantize_static "))
    return found


def pruned() -> list[Point]:
    """The same for pruned students: Taylor's importance and magnitudes, with and without bits."""
    ours = [g for g in grouped("bits") + grouped("networks") if g.network in _COLOURS]
    pool, found = grouped("pruning"), []
    for g in ours:
        if g.name == "w8a8" and g.network != "foamliu_mobilefacenet":
            found += _point(g, speed_of(g, ours, "onnxruntime"), "D", "w8a8")
    for g in pool:
        mark = "x" if "magnitude" in g.name else "s" if "float" in g.name else "o"
        found += _point(g, g.times("onnxruntime", 1), mark, g.name.split()[0])
    return found


PLOTS: dict[str, tuple[Callable[[], list[Point]], dict[str, str]]] = {
    "bits.png": (by_bits, {"o": "ours, by bits", "x": "quantize_static, W8A8"}),
    "pruning.png": (
        pruned,
        {"D": "W8A8", "o": "pruned, W8A8", "s": "pruned, float", "x": "pruned by magnitudes, W8A8"},
    ),
}


def _point(g: Group, times: float | None, mark: str, words: str) -> list[Point]:
    loss = g.mean_loss("1e-4")
    if times is None or loss is None:
        return []
    return [(round(times, 4), round(max(loss, _LEAST), 4), g.network, mark, words)]


def digest(name: str) -> str:
    """Of the points of a picture and of the code that draws it."""
    points, marks = PLOTS[name]
    text = json.dumps([points(), marks]) + Path(__file__).read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stale(folder: Path = IMAGES) -> list[Path]:
    """Pictures that are missing or were drawn from something else."""
    return [folder / name for name in PLOTS if _drawn_from(folder / name) != digest(name)]


def _drawn_from(path: Path) -> str | None:
    if not path.is_file():
        return None
    with Image.open(path) as image:
        found = image.info.get(_KEY)
    return found if isinstance(found, str) else None


def draw(folder: Path = IMAGES) -> None:
    """Draw the pictures that are stale."""
    for path in stale(folder):
        points, marks = PLOTS[path.name]
        _draw(points(), marks, path, digest(path.name))


def _draw(points: list[Point], marks: dict[str, str], path: Path, digest: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for times, loss, network, mark, words in points:
        axis.plot(times, loss, mark, color=_COLOURS[network])
        axis.annotate(f" {words}", (times, loss), fontsize=7)
    axis.set_xlabel("times as fast as the best float form in ONNX Runtime, one crop, one thread")
    axis.set_ylabel(f"loss of TAR at FAR 1e-4, all pairs of LFW,\npoints (at least {_LEAST})")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.margins(x=0.1)
    axis.grid(alpha=0.3)
    style: dict[str, Any] = {"linestyle": "none"}
    for network in dict.fromkeys(point[2] for point in points):
        axis.plot([], [], marker="o", color=_COLOURS[network], label=network, **style)
    for mark, words in marks.items():
        axis.plot([], [], marker=mark, color="#868e96", label=words, **style)
    axis.legend(fontsize=7)
    figure.savefig(path, metadata={_KEY: digest}, dpi=110)
    pyplot.close(figure)
