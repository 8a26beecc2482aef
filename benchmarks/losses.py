"""What the metric loss adds: embedding distillation alone, EKD as published, ours alone, both.

    python benchmarks/losses.py --shared ../shared --out runs/losses
    python benchmarks/losses.py --shared ../shared --out runs/losses --only "y1/w6a6 both"

Rows are runs of `compress` on faces6k, evaluated on LFW once, one file each of
benchmarks/results/losses; a row that is there is left alone. Embedding distillation alone is the row
of the same bits and seed of low_bits.py, with the same steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from efquantface.runtime.memory import keep_freed_memory
from low_bits import EPOCHS, TEACHERS, make_row, read_rows, table

ROWS = Path(__file__).parent / "results" / "losses"
LOSSES = {
    "both": {"metric": "ours"},
    "metric alone": {"metric": "ours", "loss": "none"},
    "ekd": {"metric": "ekd"},
}
BITS = ("w6a6", "w4a4", "w8a8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", help="TEACHER/ROW, by its beginning")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    keep_freed_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    lfw, faces = args.shared / "data" / "lfw112", args.shared / "data" / "faces6k"
    wanted = [
        (f"{teacher}/{bits} {loss} seed {seed}", teacher, bits, loss, seed)
        for bits in BITS
        for seed in range(args.seeds)
        for loss in LOSSES
        for teacher in TEACHERS
    ]
    for name, teacher, bits, loss, seed in wanted:
        if args.only and not any(name.startswith(only) for only in args.only):
            continue
        fields = {
            "teacher": str(args.shared / "weights" / f"{teacher}.onnx"),
            "faces": str(faces),
            "preprocess": TEACHERS[teacher],
            "eval": (f"lfw={lfw}",),
            "benchmark": False,
            "threads": args.threads,
            "bits": bits,
            "seed": seed,
            "epochs": EPOCHS.get(bits, 2),
            **LOSSES[loss],
        }
        make_row(ROWS, args.out, name, fields, lfw)
    print(table(read_rows(ROWS)))


if __name__ == "__main__":
    main()
