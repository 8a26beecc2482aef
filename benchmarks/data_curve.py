"""How many images are enough: accuracy against training images and against minutes, W6A6.

    efq data check ../shared/data/faces6k --teacher TEACHER --against ../shared/data/lfw112 -o a.txt
    efq data check ../shared/data/extra --teacher TEACHER --against ../shared/data/lfw112 -o b.txt
    python benchmarks/data_curve.py --shared ../shared --out runs/curve --exclude a.txt b.txt
    python benchmarks/data_curve.py --shared ../shared --out runs/curve --plot docs/images/curve.png

Random choices of faces6k, all of it (the row of the same bits, epochs and seed of low_bits.py), all that
the checks leave of faces6k and extra, and synthetic faces. Rows are runs of `compress` with the same
epochs, evaluated on LFW once, one file each of benchmarks/results/data_curve; a row that is there is
left alone.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from efquantface.curate import write_subset
from efquantface.data.listing import read_excluded
from efquantface.data.source import find_images
from low_bits import ROWS as BITS_ROWS
from low_bits import add_arguments, begin, epochs, make_row, read_rows, row_file, table

ROWS = Path(__file__).parent / "results" / "data_curve"
TEACHER, BITS = "y1", "w6a6"
SIZES = (500, 1000, 2000, 4000)
ALL = "both sets, checked"


def rows(args: argparse.Namespace) -> list[tuple[str, str]]:
    """(name, faces) of every row that is made here."""
    data = args.shared / "data"
    found = []
    for size in SIZES:
        path = args.out / f"{size}.txt"
        if not path.is_file():
            write_subset(data / "faces6k", path, size, "random")
        found.append((f"{size:,} images", str(path)))
    if args.exclude:
        found.append((ALL, str(_both(data, args.exclude, args.out / "both.txt"))))
    found.append(("6,000 synthetic images", "synthetic:6000"))
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
    for name, faces in rows(args):
        fields = {"faces": faces, "bits": BITS, "epochs": epochs(TEACHER, BITS)}
        make_row(ROWS, args, TEACHER, name, fields, fake=False)
    found = [*read_rows(ROWS), all_of_faces6k()]
    print(table(found))
    if args.plot:
        plot(found, args.plot)


def all_of_faces6k() -> dict:
    """The row of low_bits.py that is the curve's too."""
    path = row_file(BITS_ROWS, f"{TEACHER}/{BITS} seed 0")
    return {**json.loads(path.read_text()), "name": f"{TEACHER}/6,429 images"}


def plot(found: list[dict], path: Path) -> None:
    """TAR of all pairs against images and against minutes of training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for row in found:
        named = {m["name"]: m for m in row["protocols"][1]["metrics"]}
        tar = 100 * named["TAR@FAR=0.0001"]["student"]
        name = row["name"].partition("/")[2]
        marker = "x" if "synthetic" in name else "o"
        for axis, value in zip(axes, (row["images"], row["minutes"]), strict=True):
            axis.plot(value, tar, marker, color="#0b7285")
            axis.annotate(f" {name}", (value, tar), fontsize=7)
    axes[0].set_xlabel("training images")
    axes[1].set_xlabel("minutes of training, one thread")
    axes[0].set_ylabel("TAR@FAR=1e-4, all pairs of LFW, %")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path)


if __name__ == "__main__":
    main()
