"""Rows of several seeds as one: mean, least and largest loss, for the tables of docs/results.md.

python benchmarks/seeds.py benchmarks/results/low_bits benchmarks/results/losses --teacher y1

--plot FILE draws every seed and the means of rows with two seeds or more.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from low_bits import read_rows
from main_job import WANTED

_TICKS = (0, 0.5, 1, 3, 10, 30)
_SEED = re.compile(r" seed \d+$")


def grouped(found: list[dict]) -> dict[tuple[str, int], list[dict]]:
    """Rows that differ in their seed only; images a step are part of what must not differ."""
    groups = defaultdict(list)
    for row in found:
        if _SEED.search(row["name"]):
            groups[_SEED.sub("", row["name"]), row.get("batch", 64)].append(row)
    return dict(sorted(groups.items()))


def losses(row: dict) -> list[float]:
    """Accuracy, TAR@1e-3 of the pairs, TAR@1e-4 and 1e-5 of all pairs: losses in points."""
    pairs, every = ({m["name"]: m for m in p["metrics"]} for p in row["protocols"][:2])
    named = [pairs[m] for m in WANTED[:2]] + [every[m] for m in WANTED[2:4]]
    return [100 * m["loss"] for m in named]


def table(found: list[dict]) -> str:
    lines = [
        "| | seeds | images a step | held-out loss | loss of LFW accuracy | TAR@1e-3 (pairs) "
        "| TAR@1e-4 (all pairs) | 1e-5 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, batch), rows in grouped(found).items():
        held = np.array([row["held_out"][1] for row in rows])
        values = np.array([losses(row) for row in rows])
        cells = [f"{len(rows)}", f"{batch}", spread(held, 4, "")]
        cells += [spread(column, 2, "+") for column in values.T]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def spread(values: np.ndarray, digits: int, sign: str) -> str:
    """Mean [least, largest]; the mean alone of one value."""
    text = f"{values.mean():{sign}.{digits}f}"
    if len(values) > 1:
        text += f" [{values.min():{sign}.{digits}f}, {values.max():{sign}.{digits}f}]"
    return text


def plot(found: list[dict], path: Path) -> None:
    """A panel a measure: a dot a seed, a bar the mean, groups by name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = {
        f"{name}, {batch}": np.array([losses(row) for row in rows])
        for (name, batch), rows in grouped(found).items()
        if len(rows) > 1
    }
    panels = ("LFW accuracy", "TAR@1e-3, pairs", "TAR@1e-4, all pairs", "TAR@1e-5, all pairs")
    figure, axes = pyplot.subplots(
        1, 4, figsize=(11, 1 + 0.28 * len(groups)), layout="constrained", sharey=True
    )
    for column, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        for at, values in enumerate(groups.values()):
            mean = values[:, column].mean()
            axis.plot(values[:, column], [at] * len(values), "o", color="#0b7285", alpha=0.6)
            axis.plot([mean, mean], [at - 0.3, at + 0.3], color="#e8590c", linewidth=2)
        axis.axvline(0, color="#868e96", linewidth=0.8)
        # linear below a point: a metric loss alone loses a hundred times as much as the others
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xticks([t for t in _TICKS if t < axis.get_xlim()[1]], minor=False)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlim(left=min(v[:, column].min() for v in groups.values()) - 0.1)
        axis.set_xlabel(f"loss of {panel}, points", fontsize=8)
        axis.grid(alpha=0.3)
    axes[0].set_yticks(range(len(groups)), groups, fontsize=8)
    axes[0].invert_yaxis()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--teacher", default="")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    missing = [str(r) for r in args.rows if not r.is_dir()]
    if missing:
        sys.exit(f"{', '.join(missing)}: no such folder of rows")
    found = [row for folder in args.rows for row in read_rows(folder)]
    wanted = [row for row in found if row["name"].startswith(args.teacher)]
    print(table(wanted))
    if args.plot:
        plot(wanted, args.plot)


if __name__ == "__main__":
    main()
