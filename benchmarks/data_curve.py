"""How many images are enough: accuracy against training images and against minutes, W6A6.

    efq data check ../shared/data/faces6k --teacher TEACHER --against ../shared/data/lfw112 -o a.txt
    efq data check ../shared/data/extra --teacher TEACHER --against ../shared/data/lfw112 -o b.txt
    python benchmarks/data_curve.py --shared ../shared --out runs/curve --exclude a.txt b.txt
    python benchmarks/data_curve.py --shared ../shared --out runs/curve --plot docs/images/curve.png

Random choices of faces6k, all of it (the rows of the same bits and epochs of low_bits.py), all that
the checks leave of faces6k and extra, and synthetic faces. Rows are runs of `compress` with the same
epochs, evaluated on LFW once, one file each of benchmarks/results/data_curve; a row that is there is
left alone.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from efquantface.data.listing import read_excluded
from efquantface.data.source import find_images
from efquantface.verbs.curate import write_subset
from low_bits import ROWS as BITS_ROWS
from low_bits import add_arguments, begin, epochs, make_row, read_rows
from seeds import grouped, losses, spread

ROWS = Path(__file__).parent / "results" / "data_curve"
TEACHER, BITS = "y1", "w6a6"
SIZES = (500, 1000, 2000, 4000)
WHOLE, ALL, SYNTHETIC = "6,429 images", "both sets, checked", "6,000 synthetic images"
COLOURS = {"faces6k": "#0b7285", ALL: "#7048a8", SYNTHETIC: "#e8590c"}


def rows(args: argparse.Namespace) -> list[tuple[str, dict]]:
    """(name, fields of the recipe) of every row that is made here; a seed chooses images, too."""
    data = args.shared / "data"
    sets = {SYNTHETIC: "synthetic:6000"}
    if args.exclude:
        sets[ALL] = str(_both(data, args.exclude, args.out / "both.txt"))
    found = []
    for seed in range(args.seeds):
        for size in SIZES:
            path = args.out / f"{size}_{seed}.txt"
            if not path.is_file():
                write_subset(data / "faces6k", path, size, "random", seed=seed)
            found.append((f"{size:,} images seed {seed}", {"faces": str(path), "seed": seed}))
        found += [
            (f"{name} seed {seed}", {"faces": faces, "seed": seed}) for name, faces in sets.items()
        ]
    return found


def _both(data: Path, exclude: list[Path], path: Path) -> Path:
    """A list of what the checks leave of faces6k and extra."""
    if not path.is_file():
        out = set().union(*(read_excluded(e) for e in exclude))
        lines = []
        for folder in ("faces6k", "extra"):
            for image in find_images(data / folder):
                if os.path.normpath(image.absolute()) not in out:
                    name = os.path.relpath(image, path.parent)
                    lines.append(f"{name}\t{folder}/{image.parent.name}")
        path.write_text("\n".join(lines) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--exclude", type=Path, nargs="*", default=[], help="of efq data check")
    parser.add_argument("--plot", type=Path)
    args = begin(parser)
    for name, options in rows(args):
        fields = {"bits": BITS, "epochs": epochs(TEACHER, BITS), **options}
        make_row(ROWS, args, TEACHER, name, fields, fake=False)
    found = [*read_rows(ROWS), *all_of_faces6k()]
    print(curve(found))
    if args.plot:
        plot(found, args.plot)


def all_of_faces6k() -> list[dict]:
    """The rows of low_bits.py that are the curve's too."""
    made = [row for row in read_rows(BITS_ROWS) if row["name"].startswith(f"{TEACHER}/{BITS} seed")]
    return [{**row, "name": row["name"].replace(BITS, WHOLE)} for row in made]


def curve(found: list[dict]) -> str:
    """The table of docs/results.md, by images."""
    lines = [
        "| faces | trained on | seeds | minutes | loss of LFW accuracy | TAR@1e-3 (pairs) "
        "| TAR@1e-4 (all pairs) | 1e-5 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, _), same in sorted(grouped(found).items(), key=lambda g: g[1][0]["images"]):
        images, minutes = (np.array([r[key] for r in same]) for key in ("images", "minutes"))
        cells = [f"{images.mean():,.0f}", f"{len(same)}", f"{minutes.mean():.1f}"]
        cells += [spread(column, 2, "+") for column in np.array([losses(r) for r in same]).T]
        lines.append(f"| {name.partition('/')[2]} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def plot(found: list[dict], path: Path) -> None:
    """Losses of TAR of all pairs against images and against minutes: a dot a seed, lines of means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = {name.partition("/")[2]: same for (name, _), same in grouped(found).items()}
    of_faces6k = sorted(
        (same for name, same in groups.items() if name not in (SYNTHETIC, ALL)),
        key=lambda same: same[0]["images"],
    )
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained", sharey="row")
    for column, key in enumerate(("images", "minutes")):
        for line, far in enumerate(("1e-4", "1e-5")):
            axis = axes[line][column]
            means = [
                (np.mean([r[key] for r in same]), np.mean([losses(r)[2 + line] for r in same]))
                for same in of_faces6k
            ]
            axis.plot(*zip(*means, strict=True), color=COLOURS["faces6k"], linewidth=1)
            for name, same in groups.items():
                kind = name if name in (SYNTHETIC, ALL) else "faces6k"
                axis.plot(
                    [r[key] for r in same], [losses(r)[2 + line] for r in same], "o",
                    color=COLOURS[kind], alpha=0.7, label=kind,
                )  # fmt: skip
            axis.set_xscale("log")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3, which="both")
            axis.set_ylabel(f"loss of TAR@{far}, all pairs of LFW, points", fontsize=8)
    axes[1][0].set_xlabel("images trained on, two epochs")
    axes[1][1].set_xlabel("minutes of training, one thread")
    handles, labels = axes[0][0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes[0][0].legend(once.values(), once.keys(), fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main()
