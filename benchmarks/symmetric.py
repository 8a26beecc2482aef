"""What symmetric students are in TensorRT's form and in ncnn: cosines on LFW.

    efq compress TEACHER.onnx FACES --activations symmetric --no-finetune -o RUN
    python benchmarks/symmetric.py --shared ../shared --runs y1=RUN mobileface2=RUN

Each run is exported to both formats and opened in the runtime that checks it: ncnn, and ONNX Runtime for
TensorRT's file. Cosines are means over the first --crops images of LFW. Rows:
benchmarks/results/symmetric.jsonl.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from efquantface.data.faces import load_faces
from efquantface.embedding.embedder import Embedder
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.rows import mean_cosine
from runner import rows


def opened(model: FaceModel, name: str, folder: Path) -> Embedder:
    """A model's file of a format, in the runtime that checks it."""
    form = FORMATS[name]
    file = folder / f"student{form.between}{form.suffix}"
    deliver(model, form, file)
    return Embedder(model.contract, file.name, name, form.room.open(file, 1))


def measured(run: Path, teacher: Path, shared: Path, crops: int) -> dict[str, float]:
    """Cosines of a run."""
    student = load_model(run / "student.safetensors")
    faces = load_faces(shared / "data" / "lfw112", student.contract).images[:crops]
    own = Embedder.open(run / "student.onnx", threads=1).embed(faces)
    wanted = Embedder.open(teacher, threads=1).embed(faces)
    with tempfile.TemporaryDirectory() as name:
        ncnn = opened(student, "ncnn", Path(name))
        tensorrt = opened(student, "tensorrt", Path(name))
        found = {
            "student to teacher": mean_cosine(own, wanted),
            "ncnn to student": mean_cosine(ncnn.embed(faces), own),
            "ncnn to teacher": mean_cosine(ncnn.embed(faces), wanted),
            "TensorRT's file to student": mean_cosine(tensorrt.embed(faces), own),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", required=True, help="NAME=RUN, NAME of shared/weights")
    parser.add_argument("--crops", type=int, default=256)
    args = parser.parse_args()
    found = {}
    for word in args.runs:
        name, _, run = word.partition("=")
        teacher = args.shared / "weights" / f"{name}.onnx"
        found[name] = measured(Path(run), teacher, args.shared, args.crops)
        print(name, ", ".join(f"{k} {v:.4f}" for k, v in found[name].items()), flush=True)
    row = {"name": "symmetric", "crops": args.crops, "found": found}
    rows.keep("symmetric", {**rows.stamp(), **row})


if __name__ == "__main__":
    main()
