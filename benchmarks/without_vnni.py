"""A machine without VNNI: what saturating sums cost, and what avoiding them costs.

    python benchmarks/low_bits.py --shared ../shared --out runs/low_bits \
        --only "y1/w8a8 untrained" --only "y1/w7a8 untrained"
    python benchmarks/without_vnni.py --shared ../shared \
        --runs runs/low_bits/y1_w8a8_untrained runs/low_bits/y1_w7a8_untrained

Each run's file in ONNX Runtime's default session, in ours (exact sums), and in OpenVINO: cosine to
the student computed in integers (OpenVINO's has quantizers in other places: another student), LFW,
and time in turns with the best float form, one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import onnxruntime as ort
import torch

from commands import command_line
from efquantface import Embedder
from efquantface.contract import FaceContract
from efquantface.embedding.benchmark import benchmark
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.run import evaluate_set
from efquantface.export.emulate import emulate
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.graph.checkpoint import load_checkpoint
from efquantface.importers.load import load_model
from efquantface.quantize.vocabulary import OPERATORS
from efquantface.rows import mean_cosine
from efquantface.runtime.environment import environment
from efquantface.runtime.processor import lacks_vnni
from efquantface.runtime.sessions import run_onnxruntime
from low_bits import loss_cell

_CROPS = 256


def default_session(path: Path, contract: FaceContract) -> Embedder:
    """The file as somebody opens it who knows of no options."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Embedder(contract, path.name, "onnxruntime", run_onnxruntime(session), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    if not lacks_vnni():
        sys.exit("this processor has VNNI (or is not x86): nothing saturates here")
    teacher = load_model(args.shared / "weights" / "y1.onnx")
    (people,) = load_eval(f"lfw={args.shared / 'data' / 'lfw112'}", teacher.contract)
    faces = people.faces.images
    floating = Embedder.open(teacher, backend="onnxruntime", threads=1)
    reference = floating.embed(faces)
    models = {"best float form": floating}
    rows = {}
    for run in args.runs:
        student = load_checkpoint(run / "student.safetensors", OPERATORS)
        bits = run.name.split("_")[1]
        deliver(student, FORMATS["openvino"], run / "student.xml")
        pixels = torch.from_numpy(student.contract.pixels(faces[:_CROPS]))
        integers = emulate(student, pixels).numpy()
        sessions = {
            "default session": default_session(run / "student.onnx", student.contract),
            "exact sums": Embedder.open(run / "student.onnx", threads=1),
            "OpenVINO": Embedder.open(run / "student.xml", threads=1),
        }
        for name, session in sessions.items():
            found = session.embed(faces)
            metrics = evaluate_set(people, reference, found)[0].as_dict()["metrics"]
            named = {m["name"]: m for m in metrics}
            rows[f"{bits}, {name}"] = [
                f"{mean_cosine(found[:_CROPS], integers):.5f}",
                loss_cell(named["accuracy"]),
                loss_cell(named["TAR@FAR=0.001"]),
            ]
            models[f"{bits}, {name}"] = session
    times = {
        (t.name, t.batch): t.median_ms for t in benchmark(list(models.items()), rounds=args.rounds)
    }
    env = environment()
    print(
        f"{time.strftime('%Y-%m-%d')}, {env['processor']} ({', '.join(env['instruction_sets'])}), one "
        f"thread, ONNX Runtime {env['packages']['onnxruntime']}, OpenVINO "
        f"{env['packages']['openvino']}; `{command_line()}`\n\n"
        "| | cosine to integers | LFW accuracy (loss) | TAR@1e-3 (loss) | batch 1 | batch 16 |\n"
        "|---|---|---|---|---|---|"
    )
    for name, cells in rows.items():
        ratios = [times["best float form", b] / times[name, b] for b in (1, 16)]
        print(f"| {name} | " + " | ".join([*cells, *(f"{r:.2f}x" for r in ratios)]) + " |")


if __name__ == "__main__":
    main()
