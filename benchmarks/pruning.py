"""Accuracy against multiply-accumulates, file size and measured latency: pruned, quantized, both.

    python benchmarks/pruning.py --shared ../shared --out runs/pruning
    python benchmarks/pruning.py --shared ../shared --out runs/pruning --only "y1/50% w8a8"
    python benchmarks/pruning.py --shared ../shared --out runs/pruning --measure --plot pruning.png

    efq align ../shared/data/lfw150 -o LFW --template dlib150 --pick central
    efq align ../shared/data/faces6k -o FACES --template dlib150 --pick central
    cp ../shared/data/lfw112/pairs.txt LFW
    python benchmarks/pruning.py --shared ../shared --out runs/pruning --dlib FACES LFW --only dlib

Rows are runs of `compress` on faces6k, evaluated on LFW once, one file each of
benchmarks/results/pruning; a row that is there is left alone. Latency is measured in turns with the
teacher's best float form in the same runtime, one thread; --measure does only that, for the rows (of
--only) that are there, on a machine that does nothing else. Where a run is not there, its channels are
made again without training (--shapes does that beforehand), and have to have as many
multiply-accumulates as the row. Magnitude pruning, with the same
recovery and fine-tuning, is the peer. The smallest teacher's pruned rows have the epochs of the default,
the others' a third where they do not say another number. --plot draws the rows that are there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.recipe import PRUNED_EPOCHS, Recipe
from low_bits import add_arguments, begin, is_wanted, make_row, read_rows, row_file
from run_speed import measured
from same_channels import SameChannels

ROWS = Path(__file__).parent / "results" / "pruning"
TEACHERS = ("mobileface2", "y1", "dlib")
DLIB = "dlib-resnet"
SHARES = (0.25, 0.5, 0.7)
EPOCHS = {"mobileface2": PRUNED_EPOCHS, "y1": PRUNED_EPOCHS // 3, "dlib": PRUNED_EPOCHS // 3}
MORE = {  # with the default's epochs: what a third of them misses, and bits for machines without VNNI
    "mobileface2": [("50% w7a8", 0.5, "w7a8")],
    "y1": [
        (f"50% w8a8 full range {PRUNED_EPOCHS} epochs", 0.5, "w8a8"),
        (f"50% w7a8 {PRUNED_EPOCHS} epochs", 0.5, "w7a8"),
    ],
    "dlib": [(f"25% w8a8 full range {PRUNED_EPOCHS} epochs", 0.25, "w8a8")],
}
COLOURS = {"y1": "#0b7285", "mobileface2": "#e8a33d", "dlib": "#7048a8"}
_LEAST = 0.05  # what is lost less is drawn here


def rows(teacher: str) -> list[tuple[str, dict]]:
    """(name, fields of the recipe)."""
    found: list[tuple[str, dict]] = []
    for share in SHARES:
        fields = {"prune": share, "epochs": EPOCHS[teacher]}
        found += [(f"{share:.0%} {bits}", {**fields, "bits": bits}) for bits in ("w8a8", "float")]
        full = {**fields, "bits": "w8a8", "full_range": True}
        found.append((f"{share:.0%} w8a8 full range", full))
        found.append(
            (f"{share:.0%} w8a8 full range magnitude", {**full, "importance": "magnitude"})
        )
    found += [
        (
            name,
            {
                "prune": share,
                "bits": bits,
                "epochs": PRUNED_EPOCHS,
                "full_range": "full range" in name,
            },
        )
        for name, share, bits in MORE[teacher]
    ]
    found += [
        (f"0% {bits}", {"bits": bits, "epochs": 2}) for bits in ("w8a8", "w6a8", "w6a6", "w4a8")
    ]
    found.append(("0% w8a8 full range", {"bits": "w8a8", "epochs": 2, "full_range": True}))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument(
        "--dlib", type=Path, nargs=2, metavar=("FACES", "LFW"), help="crops for dlib"
    )
    parser.add_argument(
        "--measure", action="store_true", help="only latencies, of the rows that are there"
    )
    parser.add_argument(
        "--shapes", action="store_true", help="only channels, for rows whose runs are not there"
    )
    parser.add_argument("--plot", type=Path)
    args = begin(parser)
    for teacher in TEACHERS:
        if teacher == "dlib" and not args.dlib:
            continue
        made: SameChannels | None = None
        for name, options in rows(teacher):
            full = f"{teacher}/{name}"
            path = row_file(ROWS, full)
            if not is_wanted(full, args):
                continue
            there, run = path.is_file(), args.out / path.stem
            fields = {**options, **_data(teacher, args)}
            if not (args.measure or args.shapes):
                make_row(ROWS, args, teacher, name, fields, fake=False)
                if not there:
                    add_cost(full, run, args)
            elif there:
                if not run.is_dir():
                    run = args.out / "untrained" / path.stem
                if not (run / "student.onnx").is_file():
                    made = made or SameChannels(_teacher(teacher, args), _faces(teacher, args))
                    made.write(run, Recipe.create({"teacher": "", "faces": "", **fields}))
                if args.measure:
                    add_cost(full, run, args)
    ROWS.with_suffix(".md").write_text(table(read_rows(ROWS)))
    print(table(read_rows(ROWS)))
    if args.plot:
        plot(read_rows(ROWS), args.plot)


def _data(teacher: str, args: argparse.Namespace) -> dict:
    """Fields of the recipe for the teacher that wants crops of another template."""
    if teacher != "dlib":
        return {}
    faces, lfw = args.dlib
    return {"teacher": DLIB, "faces": str(faces), "eval": (f"lfw={lfw}",)}


def _teacher(teacher: str, args: argparse.Namespace) -> FaceModel:
    return load_model(DLIB if teacher == "dlib" else args.shared / "weights" / f"{teacher}.onnx")


def _faces(teacher: str, args: argparse.Namespace) -> Path:
    return args.dlib[0] if teacher == "dlib" else args.shared / "data" / "faces6k"


def add_cost(name: str, run: Path, args: argparse.Namespace) -> None:
    """Multiply-accumulates and latencies of a row's student, beside the teacher's."""
    path = row_file(ROWS, name)
    teacher = _teacher(name.partition("/")[0], args)
    student = load_model(run / "student.safetensors")
    size = (teacher.contract.height, teacher.contract.width)
    row = json.loads(path.read_text())
    found = [macs(teacher.graph, *size), macs(student.graph, *size)]
    if row.get("macs", found) != found:
        print(f"{name}: not measured, {found[1]:,} instead of {row['macs'][1]:,} MACs")
        return
    row |= {"macs": found, **measured(teacher, run)}
    path.write_text(json.dumps(row, indent=1))


def _values(row: dict) -> dict[str, float]:
    pairs, every = row["protocols"][:2]
    named = {m["name"]: m for m in (*pairs["metrics"], *every["metrics"])}
    speed = {(t["name"], t["batch"]): t["median_ms"] for t in row["speed"]}
    ratios = {
        f"{runtime}{batch}": speed[f"teacher{name}", batch] / speed[f"student{name}", batch]
        for runtime, name in (("ort", ""), ("ov", ", OpenVINO"))
        for batch in (1, 16)
    }
    return {
        "accuracy": 100 * named["accuracy"]["student"],
        "loss": 100 * named["accuracy"]["loss"],
        "tar": 100 * named["TAR@FAR=0.0001"]["student"],
        "tar_loss": 100 * named["TAR@FAR=0.0001"]["loss"],
        "macs": row["macs"][1] / row["macs"][0],
        "mb": row["bytes"] / 1e6,
        **ratios,
    }


def table(found: list[dict]) -> str:
    """The table of docs/results.md; speed (batch 1, 16) is against the teacher in that runtime."""
    lines = [
        "| | epochs | LFW accuracy (loss) | TAR@1e-4, all pairs (loss) | MACs | MB | ONNX Runtime "
        "| OpenVINO |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted((r for r in found if "speed" in r), key=lambda r: r["name"]):
        v = _values(row)
        lines.append(
            f"| {row['name']} | {row['epochs']} | {v['accuracy']:.2f} ({v['loss']:+.2f}) | "
            f"{v['tar']:.2f} ({v['tar_loss']:+.2f}) | {v['macs']:.0%} | {v['mb']:.2f} | "
            f"{v['ort1']:.2f}x, {v['ort16']:.2f}x | {v['ov1']:.2f}x, {v['ov16']:.2f}x |"
        )
    return "\n".join([*lines, ""])


def plot(found: list[dict], path: Path) -> None:
    """Loss of TAR against speed, a panel a runtime, a colour a teacher, a mark a way of compressing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    marks = {"Taylor and bits": "o", "Taylor, float": "s", "magnitude and bits": "x", "bits": "D"}
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 5), layout="constrained", sharey=True)
    shown = [r for r in found if "speed" in r]
    for row in shown:
        v = _values(row)
        teacher, _, name = row["name"].partition("/")
        way = "bits" if name.startswith("0%") else "Taylor and bits"
        way = "magnitude and bits" if "magnitude" in name else way
        way = "Taylor, float" if "float" in name else way
        text = name.removeprefix("0% ").replace(" magnitude", "").replace(" float", "")
        height = max(v["tar_loss"], _LEAST)
        for axis, speed in zip(axes, ("ort1", "ov1"), strict=True):
            axis.plot(v[speed], height, marks[way], color=COLOURS[teacher])
            axis.annotate(f" {text}", (v[speed], height), fontsize=7)
    for axis, runtime in zip(axes, ("ONNX Runtime", "OpenVINO"), strict=True):
        axis.set_xlabel(f"times as fast as the teacher in {runtime}, batch 1, one thread")
        axis.set_yscale("log")
        axis.margins(x=0.15)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"loss of TAR@FAR=1e-4, all pairs of LFW, points (at least {_LEAST})")
    for teacher in dict.fromkeys(row["name"].partition("/")[0] for row in shown):
        axes[0].plot([], [], "o", color=COLOURS[teacher], label=teacher)
    for way, mark in marks.items():
        axes[0].plot([], [], mark, color="#868e96", label=way)
    axes[0].legend(fontsize=7)
    figure.savefig(path)


if __name__ == "__main__":
    main()
