"""The README's picture: loss against speed, ours and the peers'.

    python benchmarks/readme_picture.py docs/images/readme.svg

A row is a file in one runtime: its speed against the owner's file there, and what it loses.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt


class Row(NamedTuple):
    name: str
    speed: float  # times as fast as the owner's file in the same runtime
    loss: float  # TAR@FAR=1e-4 over all pairs, in points
    ours: bool


# y1 on LFW, one crop, one thread, AMD EPYC with VNNI: docs/results.md
ROWS = (
    Row("W8A8", 3.90, 0.12, True),
    Row("W6A8", 3.71, 0.16, True),
    Row("W4A8", 3.90, 0.76, True),
    Row("float, rewritten", 2.08, 0.0, True),
    Row("quantize_static, MinMax", 0.91, 7.60, False),
    Row("quantize_static, Percentile", 0.92, 2.52, False),
    Row("NNCF in OpenVINO", 1.16, 0.04, False),
)
_PLACES = (("left", 8, 0), ("right", -8, 0), ("center", 0, 9), ("center", 0, -9))
_OURS, _PEERS = "#3f51b5", "#607d8b"


def draw(rows: Sequence[Row], title: str = "", wanted: str = "TAR@FAR=1e-4") -> Any:
    """A figure of loss against speed; what is better lies at the right and below."""
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "efquantface", "font.size": 11})
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for ours, mark, colour, label in (
        (True, "o", _OURS, "efquantface"),
        (False, "s", _PEERS, "others"),
    ):
        some = [row for row in rows if row.ours == ours]
        axes.scatter(
            [r.speed for r in some], [r.loss for r in some],
            s=60, marker=mark, c=colour, label=label, zorder=3,
        )  # fmt: skip
    top = max(row.loss for row in rows)
    axes.set(
        xlim=(0, 1.15 * max(row.speed for row in rows)),
        ylim=(-0.12 * top, 1.1 * top),
        xlabel="times as fast as the owner's file",
        ylabel=f"loss of {wanted}, points",
        title=title,
    )
    axes.axvline(1, color="#b0bec5", linewidth=1, linestyle="--")
    axes.axhline(0, color="#b0bec5", linewidth=1, linestyle="--")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    _name(figure, axes, rows)
    return figure


def _name(figure: Any, axes: Any, rows: Sequence[Row]) -> None:
    """Write each name beside its mark, where no other name or mark stands."""
    figure.canvas.draw()
    taken = [
        matplotlib.transforms.Bbox.from_bounds(x - 5, y - 5, 10, 10)
        for x, y in axes.transData.transform([(row.speed, row.loss) for row in rows])
    ]
    for index, row in enumerate(rows):
        for align, dx, dy in _PLACES:
            text = axes.annotate(
                row.name, (row.speed, row.loss), (dx, dy), textcoords="offset points", ha=align,
                va="center" if dx else ("bottom" if dy > 0 else "top"),
                color=_OURS if row.ours else _PEERS,
            )  # fmt: skip
            box = text.get_window_extent()
            others = taken[:index] + taken[index + 1 :]
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
            if inside and not any(box.overlaps(other) for other in others):
                break
            if (align, dx, dy) != _PLACES[-1]:
                text.remove()
        taken.append(box)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("output", type=Path, help="the picture, as SVG")
    output = parser.parse_args().output
    figure = draw(ROWS, "MobileFaceNet y1 on LFW")
    figure.savefig(output, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
