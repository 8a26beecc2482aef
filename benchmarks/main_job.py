"""The main job measured: teacher, float form, quantize_static and ours on the same images.

    python benchmarks/main_job.py --shared ../shared --teacher y1 --out runs/main_job

Calibration and training images are those of faces6k without the held-out identities; every choice
(learning rate, epochs, range search) was made on the held-out ones. LFW is evaluated once, here.
Writes OUT/TEACHER.json and OUT/TEACHER.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from commands import command_line
from efquantface import Embedder, compress
from efquantface.data.faces import load_faces, split
from efquantface.embedding.benchmark import benchmark
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.run import evaluate_set
from efquantface.export.operators import executed
from efquantface.importers.load import load_model
from efquantface.pipeline.start import calibration_index
from efquantface.recipe import Recipe
from efquantface.runtime.environment import environment
from efquantface.runtime.memory import keep_freed_memory

METHODS = {"MinMax": CalibrationMethod.MinMax, "Percentile": CalibrationMethod.Percentile}
WANTED = ("accuracy", "TAR@FAR=0.001", "TAR@FAR=0.0001", "TAR@FAR=1e-05", "TAR@FAR=1e-06")


class Reader(CalibrationDataReader):
    def __init__(self, name: str, inputs: np.ndarray) -> None:
        self.batches = iter([{name: inputs[i : i + 1]} for i in range(len(inputs))])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def static(teacher: Path, out: Path, method: str, inputs: np.ndarray, name: str) -> Path:
    """quantize_static as its users call it: QDQ, per channel, u8 activations, s8 weights."""
    target = out / f"{teacher.stem}_static_{method.lower()}.onnx"
    if not target.is_file():
        quantize_static(
            str(teacher),
            str(target),
            Reader(name, inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method],
        )
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--teacher", required=True, help="file name without .onnx")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    keep_freed_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    teacher = args.shared / "weights" / f"{args.teacher}.onnx"
    faces_dir, lfw = args.shared / "data" / "faces6k", args.shared / "data" / "lfw112"

    run = args.out / f"{args.teacher}_w8a8"
    given = {"teacher": str(teacher), "faces": str(faces_dir), "eval": (f"lfw={lfw}",)}
    recipe = Recipe.create({**given, "epochs": args.epochs, "benchmark": False})
    if not (run / "student.onnx").is_file():
        compress(str(teacher), str(faces_dir), run, recipe=recipe, resume=True)
    untrained = args.out / f"{args.teacher}_w8a8_untrained"
    if not (untrained / "student.onnx").is_file():
        compress(
            str(teacher),
            str(faces_dir),
            untrained,
            recipe=recipe.model_copy(
                update={
                    "training": recipe.training.model_copy(update={"epochs": 0}),
                    "evaluation": recipe.evaluation.model_copy(update={"eval": ()}),
                }
            ),
            resume=True,
        )

    model = load_model(teacher)
    contract = model.contract
    faces = load_faces(faces_dir, contract)
    train, _ = split(faces, recipe.hold_out, recipe.seed)
    index = calibration_index(train, recipe.seed, recipe.calibration_images)
    inputs = contract.normalize(faces.images[index])  # the very images our ranges are searched on
    rivals: dict[str, Embedder] = {"teacher": Embedder.open(teacher)}
    for method in METHODS:
        path = static(teacher, args.out, method, inputs, contract.input_name)
        rivals[f"quantize_static {method}"] = Embedder.open(path, contract=contract)
    rivals["ours, no training"] = Embedder.open(untrained / "student.onnx")
    rivals["ours"] = Embedder.open(run / "student.onnx")

    (people,) = load_eval(f"lfw={lfw}", contract)
    reference = rivals["teacher"].embed(people.faces.images)
    rows = {}
    for name, embedder in rivals.items():
        print(f"evaluating {name}", flush=True)
        student = None if name == "teacher" else embedder.embed(people.faces.images)
        protocols = evaluate_set(people, reference, student)
        rows[name] = [p.as_dict() for p in protocols]

    timed = [("teacher", Embedder.open(teacher, threads=1))]
    timed.append(("best float form", Embedder.open(model, backend="onnxruntime", threads=1)))
    timed += [
        (name, Embedder.open(e.path, contract=contract, threads=1))
        for name, e in rivals.items()
        if name != "teacher" and e.path is not None and name != "ours, no training"
    ]
    timings = benchmark(timed, rounds=args.rounds)
    sizes = {n: e.path.stat().st_size for n, e in rivals.items() if e.path is not None}
    result = {
        "command": command_line(),
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "protocols": rows,
        "sizes": sizes,
        "timings": [vars(t) for t in timings],
        "operators": {
            n: (e.convolutions, e.integer_convolutions)
            for n in rivals
            if rivals[n].path and (e := executed(rivals[n].path))
        },
        "run": json.loads((run / "metrics.json").read_text())["history"],
    }
    (args.out / f"{args.teacher}.json").write_text(json.dumps(result, indent=2))
    (args.out / f"{args.teacher}.md").write_text(table(args.teacher, result))
    print(table(args.teacher, result))


def only_value(metric: dict[str, Any]) -> float:
    """Of a metric that only a student has; rows of older versions keep it as the teacher's."""
    return float(metric["teacher"] if metric["student"] is None else metric["student"])


def table(teacher: str, result: dict) -> str:
    """The tables that docs/results.md shows."""
    env = result["environment"]
    sets = ", ".join(env["instruction_sets"])
    lines = [
        f"### {teacher}",
        "",
        f"{result['date']}, {env['processor']} ({sets}), {env['threads']} cores, ONNX Runtime "
        f"{env['packages']['onnxruntime']}, torch {env['packages']['torch']}; "
        f"`{result['command']}`; {next(iter(result['protocols'].values()))[0]['flags']}",
        "",
        "| | LFW accuracy | TAR@1e-3 (pairs) "
        "| TAR@1e-3 (all pairs) | 1e-4 | 1e-5 | 1e-6 | cosine | MB | int8 conv |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, protocols in result["protocols"].items():
        who = "teacher" if name == "teacher" else "student"
        cells = []
        for protocol, metrics in ((0, WANTED[:2]), (1, WANTED[1:])):
            found = {m["name"]: m for m in protocols[protocol]["metrics"]}
            cells += [cell(found[m], who) for m in metrics]
        extra = {m["name"]: m for m in protocols[0]["metrics"]}.get("cosine to teacher")
        integer = result["operators"][name]
        cells += [
            f"{only_value(extra):.4f}" if extra else "",
            f"{result['sizes'][name] / 1e6:.2f}",
            f"{integer[1]} of {integer[0]}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "One thread, ms a call (median of rounds in turns), ratio to the teacher's file:",
        "",
        "| | batch 1 | ratio | batch 16 | ratio |",
        "|---|---|---|---|---|",
    ]
    by_name: dict[str, list[dict]] = {}
    for t in result["timings"]:
        by_name.setdefault(t["name"], []).append(t)
    for name, pair in by_name.items():
        cells = [
            f"{t['median_ms']:.2f} | {t['ratio']:.2f}"
            for t in sorted(pair, key=lambda t: t["batch"])
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def cell(metric: dict, who: str) -> str:
    text = f"{100 * metric[who]:.2f}"
    if who == "student" and metric["loss_interval"]:
        low, high = metric["loss_interval"]
        text += f" (loss {100 * metric['loss']:+.2f} [{100 * low:.2f}, {100 * high:.2f}])"
    return text


if __name__ == "__main__":
    main()
