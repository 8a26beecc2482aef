"""Students in LiteRT on LFW: accuracy, TAR, size and speed beside their teachers in the same runtime.

    python benchmarks/litert.py --shared ../shared --work WORK --runs \
        y1=RUN mobileface2=RUN edgeface_xs=RUN mobileface2/pruned=RUN mobileface2/w4a8=RUN
    python benchmarks/litert.py ... --crops 64 --rounds 3      # a quick look
    python benchmarks/arm.py --runtime litert ...              # the same codes on ARM, under qemu

WORK gets both .tflite files. Each of them is opened in XNNPACK, as clients get it, and timed in turns in
one process. The student's cosine to its own integers is measured in XNNPACK and in LiteRT's own kernels,
on the first 64 crops. Rows: benchmarks/results/litert.jsonl.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from pathlib import Path

from efquantface.embedding.benchmark import measure
from efquantface.embedding.embedder import Embedder
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.rows import mean_cosine
from efquantface.runtime.litert import Interpreter
from efquantface.runtime.litert_file import read_checked
from runner import rows
from runner.crops import REFERENCE, Crops, cosines, in_integers, lfw_crops
from runner.script import add_runs, lfw_folder, parser, teacher_of

PACKAGE = "ai-edge-litert"


def main() -> None:
    words = parser(__doc__)
    add_runs(words)
    words.add_argument("--work", type=Path, required=True)
    words.add_argument("--rounds", type=int, default=20)
    words.add_argument("--threads", type=int, default=1)
    args = words.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for name, run in args.runs:
        student = load_model(run)
        crops = lfw_crops(lfw_folder(name, args), student.contract, args.crops)
        files = written(name, teacher_of(name, args.shared), student, args.work)
        row = {"name": name, **measured(files, student, crops, args)}
        rows.keep("litert", row)
        print(json.dumps(rows.rounded(row)), flush=True)


def written(name: str, teacher: FaceModel, student: FaceModel, work: Path) -> tuple[Path, Path]:
    """The teacher's and the student's .tflite, checked."""
    paths = []
    for model, suffix in ((teacher, "float"), (student, "student")):
        path = work / f"{name.replace('/', '_')}.{suffix}.tflite"
        for line in deliver(model, FORMATS["tflite"], path):
            print(line, flush=True)
        paths.append(path)
    return paths[0], paths[1]


def measured(
    files: tuple[Path, Path], student: FaceModel, crops: Crops, args: argparse.Namespace
) -> rows.Row:
    """A row without what is measured on ARM."""
    embedders = [Embedder.open(path, threads=args.threads) for path in files]
    floats, integers = (embedder.embed(crops.images) for embedder in embedders)
    x = student.contract.normalize(crops.images[:REFERENCE])
    exact = in_integers(student, crops.images)
    builtin = Interpreter(read_checked(files[1])[0], str(files[1]), builtin=True)(x)[0]
    named = list(zip(("float", "student"), embedders, strict=True))
    speed = measure(named, args.threads, rounds=args.rounds)
    return {
        **rows.stamp(),
        "litert": importlib.metadata.version(PACKAGE),
        "crops": len(crops.images),
        "bytes": {"float": files[0].stat().st_size, "student": files[1].stat().st_size},
        "float": crops.measures(floats),
        "student": crops.measures(integers),
        "cosine_to_float": mean_cosine(floats, integers),
        "cosine_to_integers": {
            "xnnpack": cosines(integers, exact),
            "builtin": cosines(builtin, exact),
        },
        "speed": speed.rows(),
        "conditions": speed.conditions(),
    }


if __name__ == "__main__":
    main()
