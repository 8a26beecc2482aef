"""What the metric loss adds: embedding distillation alone, EKD as published, ours alone, both.

    python benchmarks/losses.py --shared ../shared --out runs/losses
    python benchmarks/losses.py --shared ../shared --out runs/losses --only "y1/w6a6 both"

Rows are runs of `compress` on faces6k, evaluated on LFW once, one file each of
benchmarks/results/losses; a row that is there is left alone. Embedding distillation alone is the row
of the same bits and seed of low_bits.py, with the same steps. One row of y1 has the same images in one
folder, without identities.
"""

from __future__ import annotations

from pathlib import Path

from efquantface.data.source import find_images
from low_bits import TEACHERS, arguments, epochs, is_wanted, make_row, read_rows, table

ROWS = Path(__file__).parent / "results" / "losses"
LOSSES = {
    "both": {"metric": "ours"},
    "metric alone": {"metric": "ours", "loss": "none"},
    "ekd": {"metric": "ekd"},
}
BITS = ("w6a6", "w4a4", "w8a8")
UNLABELLED = "w6a6 both, no identities"


def unlabelled(faces: Path, folder: Path) -> Path:
    """Links to all images of a folder of identities, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in find_images(faces):
        link = folder / f"{image.parent.name}_{image.name}"
        if not link.is_symlink():
            link.symlink_to(image.resolve())
    return folder


def main() -> None:
    args = arguments(__doc__)
    if is_wanted(f"y1/{UNLABELLED} seed 0", args):
        faces = unlabelled(args.shared / "data" / "faces6k", args.out / "unlabelled")
        fields = {"bits": "w6a6", "epochs": epochs("y1", "w6a6"), "metric": "ours"}
        fields["faces"] = str(faces)
        make_row(ROWS, args, "y1", f"{UNLABELLED} seed 0", fields, fake=False)
    for bits in BITS:
        for seed in range(args.seeds):
            for loss, options in LOSSES.items():
                for teacher in TEACHERS:
                    fields = {
                        "bits": bits,
                        "seed": seed,
                        "epochs": epochs(teacher, bits),
                        **options,
                    }
                    make_row(ROWS, args, teacher, f"{bits} {loss} seed {seed}", fields, fake=False)
    print(table(read_rows(ROWS)))


if __name__ == "__main__":
    main()
