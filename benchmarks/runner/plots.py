"""Plots of the rows. A picture carries the digest of what it was drawn from: a check is quick."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .groups import FLOAT, USER, Group, grouped
from .suites import BITS, NNCF, STATIC
from .tables import speed_of

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SHOWN = "y1"  # in the README's picture
_COLOURS = {
    "y1": "#0b7285",
    "foamliu_mobilefacenet": "#2b8a3e",
    "mobileface2": "#e8a33d",
    "dlib": "#7048a8",
}
_OURS, _PEERS, _LINE = "#3f51b5", "#607d8b", "#b0bec5"
_LEAST = 0.05  # what is lost less is drawn here, where the axis is logarithmic
_KEY = "Rows"
_DIGEST = re.compile(rf"{_KEY}[\0 ]([0-9a-f]{{16}})".encode())
_PLACES = (("left", 8, 0), ("right", -8, 0), ("center", 0, 9), ("center", 0, -9))


class Point(NamedTuple):
    """A file: how many times as fast it is, and what it loses in points."""

    speed: float
    loss: float
    network: str
    mark: str
    words: str


@dataclass(frozen=True)
class Plot:
    points: Callable[[], list[Point]]
    drawn: Callable[[Sequence[Point]], Any]  # a figure


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


def against_owners() -> list[Point]:
    """y1 against its owner's file in the same runtime: ours by bits, the float form, the peers."""
    ours = [g for g in grouped("bits") if g.network == SHOWN]
    found = []
    for g in ours:
        if g.name in ("w8a8", "w6a8", "w4a8"):
            times = speed_of(g, ours, "onnxruntime", against=USER)
            found += _point(g, times, "o", g.name.upper(), least=None)
            against_float = speed_of(g, ours, "onnxruntime")
            if g.name == "w8a8" and times and against_float:
                rewritten = round(times / against_float, 4)
                found.append(Point(rewritten, 0.0, SHOWN, "o", f"{FLOAT}, rewritten"))
    names = {NNCF: f"{NNCF} in OpenVINO"} | {name: name.replace(" ", ", ") for name in STATIC}
    for g in grouped("peers"):
        if g.network == SHOWN and g.name in names:
            runtime = "openvino" if g.name == NNCF else "onnxruntime"
            found += _point(g, g.times(runtime, 1, USER), "s", names[g.name], least=None)
    return found


def _point(
    g: Group, times: float | None, mark: str, words: str, least: float | None = _LEAST
) -> list[Point]:
    loss = g.mean_loss("1e-4")
    if times is None or loss is None:
        return []
    drawn = loss if least is None else max(loss, least)
    return [Point(round(times, 4), round(drawn, 4), g.network, mark, words)]


def digest(name: str) -> str:
    """Of the points of a picture and of the code that draws it."""
    text = json.dumps(PLOTS[name].points()) + Path(__file__).read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stale(folder: Path = IMAGES) -> list[Path]:
    """Pictures that are missing or were drawn from something else."""
    return [folder / name for name in PLOTS if _drawn_from(folder / name) != digest(name)]


def _drawn_from(path: Path) -> str | None:
    found = _DIGEST.search(path.read_bytes()) if path.is_file() else None
    return found and found[1].decode()


def draw(folder: Path = IMAGES) -> None:
    """Draw the pictures that are stale."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("Agg")
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "efquantface"}
    for path in stale(folder):
        key = digest(path.name)
        written: Mapping[str, Any] = {_KEY: key}
        if path.suffix == ".svg":
            written = {"Date": None, "Description": f"{_KEY} {key}"}
        with matplotlib.rc_context(style):
            figure = PLOTS[path.name].drawn(PLOTS[path.name].points())
            figure.savefig(path, metadata=written, dpi=110)
        pyplot.close(figure)


def _by_network(marks: Mapping[str, str], points: Sequence[Point]) -> Any:
    """Networks by colour, ways by mark, losses on a logarithmic axis."""
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for point in points:
        axis.plot(point.speed, point.loss, point.mark, color=_COLOURS[point.network])
        axis.annotate(f" {point.words}", (point.speed, point.loss), fontsize=7)
    axis.set_xlabel("times as fast as the best float form in ONNX Runtime, one crop, one thread")
    axis.set_ylabel(f"loss of TAR at FAR 1e-4, all pairs of LFW,\npoints (at least {_LEAST})")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.margins(x=0.1)
    axis.grid(alpha=0.3)
    style: dict[str, Any] = {"linestyle": "none"}
    for network in dict.fromkeys(point.network for point in points):
        axis.plot([], [], marker="o", color=_COLOURS[network], label=network, **style)
    for mark, words in marks.items():
        axis.plot([], [], marker=mark, color="#868e96", label=words, **style)
    axis.legend(fontsize=7)
    return figure


def ours_and_others(points: Sequence[Point]) -> Any:
    """One network, ours and the peers'; what is better lies at the right and below."""
    from matplotlib import pyplot

    with pyplot.rc_context({"font.size": 11}):
        figure, axis = pyplot.subplots(figsize=(7.2, 3.6), layout="constrained")
        for mark, colour, label in (("o", _OURS, "efquantface"), ("s", _PEERS, "others")):
            some = [point for point in points if point.mark == mark]
            x, y = [point.speed for point in some], [point.loss for point in some]
            axis.scatter(x, y, s=60, marker=mark, c=colour, label=label, zorder=3)
        top = max(point.loss for point in points)
        axis.set(
            xlim=(0, 1.15 * max(point.speed for point in points)),
            ylim=(-0.12 * top, 1.1 * top),
            xlabel="times as fast as the owner's file",
            ylabel="loss of TAR@FAR=1e-4, points",
            title=f"MobileFaceNet {SHOWN} on LFW",
        )
        axis.axvline(1, color=_LINE, linewidth=1, linestyle="--")
        axis.axhline(0, color=_LINE, linewidth=1, linestyle="--")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, loc="upper right")
        _name(figure, axis, points)
    return figure


def _name(figure: Any, axis: Any, points: Sequence[Point]) -> None:
    """Write each name beside its mark, where no other name or mark stands."""
    from matplotlib.transforms import Bbox

    figure.canvas.draw()
    marks = axis.transData.transform([(point.speed, point.loss) for point in points])
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in marks]
    for at, point in enumerate(points):
        others = taken[:at] + taken[at + 1 :]
        for place in _PLACES:
            text = _annotated(axis, point, *place)
            box = text.get_window_extent()
            inside = axis.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
            if inside and not any(box.overlaps(other) for other in others):
                break
            if place != _PLACES[-1]:
                text.remove()
        taken.append(box)


def _annotated(axis: Any, point: Point, align: str, right: float, up: float) -> Any:
    return axis.annotate(
        point.words,
        (point.speed, point.loss),
        (right, up),
        textcoords="offset points",
        ha=align,
        va="center" if right else ("bottom" if up > 0 else "top"),
        color=_OURS if point.mark == "o" else _PEERS,
    )


_BITS = {"o": "ours, by bits", "x": "quantize_static, W8A8"}
_PRUNED = {
    "D": "W8A8",
    "o": "pruned, W8A8",
    "s": "pruned, float",
    "x": "pruned by magnitudes, W8A8",
}
PLOTS = {
    "bits.png": Plot(by_bits, partial(_by_network, _BITS)),
    "pruning.png": Plot(pruned, partial(_by_network, _PRUNED)),
    "readme.svg": Plot(against_owners, ours_and_others),
}
