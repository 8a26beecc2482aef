"""LFW through a folder with pairs.txt, a .bin and a .rec: the numbers have to be identical.

    python benchmarks/formats.py --shared ../shared --out runs/formats

Writes lfw.bin and lfw.rec (with a CSV list of its pairs) from the folder's own files, evaluates every
network of SHARED/weights through all three with --protocol arcface, and fails where a number differs.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from pathlib import Path

from commands import command_line
from efquantface import Embedder, evaluate
from efquantface.evaluation.benchmarks.pair_lists import read_lfw
from efquantface.runtime.environment import environment

NETWORKS = {
    "y1": None,
    "mobileface2": None,
    "foamliu_mobilefacenet": "imagenet",
    "edgeface_xs": "raw",
}
WANTED = ("accuracy", "arcface_torch Accuracy-Flip", "TAR@FAR=0.001")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from formats import write_rec

    lfw = args.shared / "data" / "lfw112"
    files = sorted(lfw.rglob("*.jpg"))
    number = {str(p.relative_to(lfw).with_suffix("")): i for i, p in enumerate(files)}
    data = [p.read_bytes() for p in files]
    people = sorted({p.parent.name for p in files})
    write_rec(args.out / "lfw.rec", data, [people.index(p.parent.name) for p in files])
    rows = read_lfw(lfw / "pairs.txt")
    sides = [data[number[name]] for row in rows for name in (row.a, row.b)]
    (args.out / "lfw.bin").write_bytes(pickle.dumps((sides, [r.same for r in rows]), protocol=2))
    lines = [
        f"lfw.rec#{number[r.a] + 1},lfw.rec#{number[r.b] + 1},{int(r.same)},{r.fold}" for r in rows
    ]
    (args.out / "lfw.csv").write_text("\n".join(["a,b,same,fold", *lines]) + "\n")

    env = environment()
    print(
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, ONNX Runtime "
        f"{env['packages']['onnxruntime']}; `{command_line()}`; flip on, thresholds as said\n"
    )
    print(
        "| | accuracy (exact thresholds) | arcface_torch Accuracy-Flip | TAR@1e-3 | three forms |"
    )
    print("|---|---|---|---|---|")
    differ = False
    for name, preprocess in NETWORKS.items():
        model = Embedder.open(args.shared / "weights" / f"{name}.onnx", preprocess=preprocess)
        forms = (f"lfw={lfw}", f"lfw={args.out / 'lfw.bin'}", f"lfw={args.out / 'lfw.csv'}")
        found = []
        for form in forms:
            result = evaluate(model, form, arcface=True, quiet=True)[0]
            found.append([(m.name, m.teacher, m.teacher_interval) for m in result.metrics])
        same = found[0] == found[1] == found[2]
        differ |= not same
        values = {n: v for n, v, _ in found[0]}
        cells = " | ".join(f"{100 * values[w]:.3f}" for w in WANTED)
        print(f"| {name} | {cells} | {'identical' if same else found} |", flush=True)
    sys.exit(int(differ))


if __name__ == "__main__":
    main()
