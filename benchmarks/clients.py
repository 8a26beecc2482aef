"""The same numbers in every client: files opened as other people's loaders open them, on LFW.

    python benchmarks/clients.py --shared ../shared --work WORK --dlib LFW150 --runs \
        y1=RUN mobileface2=RUN edgeface_xs=RUN dlib=RUN
    python benchmarks/clients.py ... --crops 512 --only y1/opencv   # a quick look, or one cell again
    python benchmarks/clients.py ... --emulated-cpu Haswell         # the x86 clients without VNNI, too

WORK gets a virtual environment with the clients from PyPI; benchmarks/client.py runs there. The
reference of a student is the student in integers, on the first 64 crops; beyond them, and for a teacher,
it is the plain session fed by the file's contract. An emulated processor is qemu's (Debian's qemu-user):
ONNX Runtime's own AVX2 kernels run there, some eight crops a second. Crops for dlib:
benchmarks/README.md. Rows: benchmarks/results/clients.jsonl; with --only a row keeps its others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from efquantface.contract import FaceContract
from efquantface.export.onnx_writer import write_onnx
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from runner import rows
from runner.crops import Crops, Floats, cosines, in_integers, lfw_crops
from runner.places import Place, made
from runner.script import add_runs, lfw_folder, parser, teacher_of

PACKAGES = (
    "onnxruntime==1.32.0",
    "openvino==2026.4.1",
    "insightface==2.1",
    "uniface==4.2.1",
    "opencv-python-headless>=5",
)
PLAIN = "onnxruntime"
CLIENTS = [PLAIN, "insightface", "face_analysis", "uniface"]
CLIENTS += ["opencv", "opencv_classic", "openvino", "openvino_float32"]
FEW = {"face_analysis": 256}  # image by image, and `insightface` computes the same


def main() -> None:
    words = parser(__doc__)
    add_runs(words)
    words.add_argument("--work", type=Path, required=True, help="for the environment: 1 GB")
    words.add_argument("--only", action="append", help="NETWORK/CLIENT, by its beginning")
    words.add_argument("--emulated-cpu", help="a processor of qemu-x86_64, like Haswell")
    words.add_argument("--emulated-crops", type=int, default=256)
    args = words.parse_args()
    python = made(args.work / "venv", PACKAGES)
    versions = installed(python)
    for name, run in args.runs:
        if wanted := list(wanted_runs(name, args)):
            row = measure(Place((str(python),)), name, run, wanted, args)
            keep({**row, "name": name, **rows.stamp(), "versions": versions})


def wanted_runs(name: str, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """(name in the row, client) of everything that is to be run for a network."""
    runs = [(client, client) for client in CLIENTS]
    if args.emulated_cpu:
        runs += [(f"{client} on {args.emulated_cpu}", client) for client in CLIENTS[:2]]
    for run in runs:
        if not args.only or any(f"{name}/{run[0]}".startswith(only) for only in args.only):
            yield run


def installed(python: Path) -> dict[str, str]:
    """Versions of the clients and of what they compute with."""
    text = subprocess.check_output([python, "-m", "pip", "freeze"], text=True)
    found = dict(line.split("==") for line in text.splitlines() if "==" in line)
    return {n: found[n] for n in ("numpy", *(p.partition("=")[0].rstrip(">") for p in PACKAGES))}


def file_of(teacher: FaceModel, work: Path) -> Path:
    """A teacher's file; dlib's, which has none in ONNX, is written."""
    if teacher.source is not None and Path(teacher.source).suffix == ".onnx":
        return Path(teacher.source)
    write_onnx(teacher, work / "teacher.onnx")
    return work / "teacher.onnx"


def measure(
    place: Place, name: str, run: Path, wanted: list[tuple[str, str]], args: argparse.Namespace
) -> rows.Row:
    """A row: every wanted client's embeddings against the references."""
    teacher = teacher_of(name, args.shared)
    student = load_model(run / "student.safetensors")
    crops = lfw_crops(lfw_folder(name, args), student.contract, args.crops)
    row: rows.Row = {"crops": len(crops.images), "clients": {}}
    for role, contract, file, exact in (
        ("teacher", teacher.contract, file_of(teacher, args.work), None),
        ("student", student.contract, run / "student.onnx", in_integers(student, crops.images)),
    ):
        plain = place.outputs(PLAIN, file, crops.images, contract)
        for label, client in wanted:
            where, few = place, FEW.get(client, len(crops.images))
            if label != client:
                emulator = ("qemu-x86_64", "-cpu", args.emulated_cpu)
                where, few = replace(place, command=emulator + place.command), args.emulated_crops
            again = label != PLAIN
            found = where.run(client, file, crops.images[:few], contract) if again else plain
            cell = judged(found, exact, plain["embeddings"], contract, crops)
            if label != client:
                cell["emulator"] = " ".join(emulator)
            if "printed" in cell:
                cell["printed"] = cell["printed"].replace(str(args.work.resolve()), "WORK")
            row["clients"].setdefault(label, {})[role] = cell
            print(f"{name}/{label}, {role}: {json.dumps(rows.rounded(cell))}", flush=True)
    return row


def judged(
    found: dict[str, Any], exact: Floats | None, plain: Floats, contract: FaceContract, crops: Crops
) -> dict[str, Any]:
    """A row's cell: cosines (mean, least), accuracy and TAR, and what the client said."""
    if "refused" in found:
        return {"refused": found["refused"]}
    mine = found["embeddings"]
    cell: dict[str, Any] = {"crops": len(mine), "cosine_to_plain": cosines(mine, plain)}
    if exact is not None:
        cell["cosine_to_integers"] = cosines(mine, exact)
    cell |= crops.measures(mine) if np.isfinite(mine).all() else {"not_finite": True}
    if "mean" in found:
        guess = (found["mean"],) * 3, (found["std"],) * 3
        cell["guessed"] = {"mean": found["mean"], "std": found["std"]}
        if guess != (contract.mean, contract.std):
            cell["warning"] = f"fed as the client guesses; the contract: {contract.normalization}"
    return {**cell, **{k: found[k] for k in ("precision", "printed") if k in found}}


def keep(row: rows.Row) -> None:
    """Keep a row; clients that were not run now stay as they are where the crops are the same."""
    known = next((old for old in rows.read("clients") if old["name"] == row["name"]), None)
    if known and known["crops"] == row["crops"]:
        row["clients"] = {**known["clients"], **row["clients"]}
    rows.keep("clients", row)


if __name__ == "__main__":
    main()
