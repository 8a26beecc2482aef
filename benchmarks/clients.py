"""The same numbers in every client: files opened as other people's loaders open them, on LFW.

    python benchmarks/clients.py --shared ../shared --work runs/clients --dlib LFW150 --students \
        y1=RUN/student.onnx mobileface2=RUN/student.onnx edgeface=RUN/student.onnx dlib=RUN/student.onnx
    python benchmarks/clients.py ... --crops 512 --only y1/opencv   # a quick look, or one cell again
    python benchmarks/clients.py ... --emulated-cpu Haswell         # the x86 clients without VNNI, too

    efq align ../shared/data/lfw150 -o LFW150 --template dlib150 --pick central
    cp ../shared/data/lfw112/pairs.txt LFW150

WORK gets a virtual environment of its own with the clients from PyPI; benchmarks/client.py runs there.
The reference of a student is the student in integers (beside the .onnx lies its .safetensors), on the
first 64 crops; beyond them, and for a teacher, it is the plain session fed by the file's contract. An
emulated processor is qemu's (Debian's qemu-user): ONNX Runtime's own AVX2 kernels run there, some
eight crops a second. Rows are lines of
benchmarks/results/clients.jsonl; with --only a row keeps its others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from efquantface.contract import FaceContract
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.metrics import fold_accuracy, supported_fars, tar_at_far
from efquantface.evaluation.protocols.pairs import pair_scores
from efquantface.evaluation.sets import EvalSet, Pairs
from efquantface.export.emulate import emulate
from efquantface.export.onnx_writer import write_onnx
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.rows import unit
from runner import rows

CHILD = Path(__file__).parent / "client.py"
PACKAGES = (
    "onnxruntime==1.32.0",
    "openvino==2026.4.1",
    "insightface==2.1",
    "uniface==4.2.1",
    "opencv-python-headless>=5",
)
TEACHERS = {"y1": "y1.onnx", "mobileface2": "mobileface2.onnx", "edgeface": "edgeface_xs.onnx"}
PLAIN = "onnxruntime"
CLIENTS = [PLAIN, "insightface", "face_analysis", "uniface"]
CLIENTS += ["opencv", "opencv_classic", "openvino", "openvino_float32"]
FEW = {"face_analysis": 256}  # image by image, and `insightface` computes the same
REFERENCE = 64
FAR = 1e-3

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Crops:
    """Crops (N,H,W,3) in the order of the pairs, so that a beginning holds pairs."""

    images: npt.NDArray[np.uint8]
    pairs: Pairs

    def measures(self, embeddings: Floats) -> dict[str, float]:
        """Accuracy, and TAR where enough impostors stand behind it, of the first crops' pairs."""
        inside = np.maximum(self.pairs.a, self.pairs.b) < len(embeddings)
        if len(embeddings) < len(self.images):
            return {}  # of fewer crops than the others: not comparable
        kept = Pairs(*(getattr(self.pairs, k)[inside] for k in ("a", "b", "same", "folds")))
        lengths_one = unit(embeddings)
        scores = pair_scores(lengths_one, lengths_one, kept)
        found = {"accuracy": fold_accuracy(scores, kept.same, kept.folds).mean}
        impostor = scores[~kept.same]
        if FAR in supported_fars(len(impostor)):
            found["tar"] = tar_at_far(scores[kept.same], impostor, FAR).tar
        return found


@dataclass(frozen=True)
class Place:
    """Where clients run."""

    python: Path
    work: Path
    emulator: tuple[str, ...] = ()

    def run(
        self, client: str, file: Path, images: npt.NDArray[np.uint8], contract: FaceContract
    ) -> dict[str, Any]:
        """What client.py finds, and the first line that the client prints on its error stream."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            crops, terms, out = (Path(folder) / n for n in ("crops.npy", "contract.json", "o.npz"))
            np.save(crops, images)
            terms.write_text(contract.to_json())
            command = [*self.emulator, str(self.python), str(CHILD), client, str(file)]
            done = subprocess.run(
                [*command, str(crops), str(terms), str(out)], stderr=subprocess.PIPE, text=True
            )
            if not out.is_file():
                last = (done.stderr.strip() or "no word").splitlines()[-1]
                return {"refused": f"ends with {done.returncode}: {last}"}
            with np.load(out) as found:
                result = {k: v if v.ndim > 1 else v.item() for k, v in found.items()}
        if printed := done.stderr.strip().splitlines():
            result["printed"] = printed[0].replace(str(self.work), "WORK")
        return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--only", action="append", help="NETWORK/CLIENT, by its beginning")
    parser.add_argument("--crops", type=int, help="of LFW; all where not given")
    parser.add_argument("--emulated-cpu", help="a processor of qemu-x86_64, like Haswell")
    parser.add_argument("--emulated-crops", type=int, default=256)
    args = parser.parse_args()
    place = environment_of_clients(args.work)
    versions = installed(place.python)
    for name, path in args.students:
        if not (wanted := list(wanted_runs(name, args))):
            continue
        teacher, teacher_file = teacher_of(name, args)
        crops = lfw_crops(lfw_folder(name, args), teacher.contract, args.crops)
        row = measure(place, wanted, (teacher, teacher_file), path, crops, args)
        row |= {"name": name, **rows.stamp(), "versions": versions}
        keep(row)
        print(told(row))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where students, faces and the environment are."""
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="for environments: 1 GB")
    parser.add_argument("--students", type=_named, nargs="+", required=True, metavar="NAME=FILE")
    add_dlib(parser)


def add_dlib(parser: argparse.ArgumentParser) -> None:
    """Where dlib's faces are."""
    parser.add_argument("--dlib", type=Path, metavar="LFW", help="crops of LFW for dlib")


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if name not in (*TEACHERS, "dlib") or not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not NETWORK=FILE, like y1=RUN/student.onnx")
    return name, Path(path)


def wanted_runs(name: str, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """(name in the row, client) of everything that is to be run for a network."""
    runs = [(client, client) for client in CLIENTS]
    if args.emulated_cpu:
        runs += [(f"{client} on {args.emulated_cpu}", client) for client in CLIENTS[:2]]
    for run in runs:
        if not args.only or any(f"{name}/{run[0]}".startswith(only) for only in args.only):
            yield run


def environment_of_clients(work: Path) -> Place:
    """The clients' virtual environment, made where it is not there."""
    work.mkdir(parents=True, exist_ok=True)
    work = work.resolve()
    venv = work / "venv"
    python, done = venv / "bin" / "python", venv / "complete"
    if not done.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
        done.touch()
    return Place(python, work)


def installed(python: Path) -> dict[str, str]:
    """Versions of the clients and of what they compute with."""
    text = subprocess.check_output([python, "-m", "pip", "freeze"], text=True)
    found = dict(line.split("==") for line in text.splitlines() if "==" in line)
    return {n: found[n] for n in ("numpy", *(p.partition("=")[0].rstrip(">") for p in PACKAGES))}


def teacher_of(name: str, args: argparse.Namespace) -> tuple[FaceModel, Path]:
    """A network's teacher, and its file; dlib's, which has none in ONNX, is written."""
    if name in TEACHERS:
        path = args.shared / "weights" / TEACHERS[name]
        return load_model(path), path
    model, path = load_model("dlib-resnet"), args.work / "dlib.onnx"
    write_onnx(model, path)
    return model, path


def lfw_folder(name: str, args: argparse.Namespace) -> Path:
    """LFW in the crops that a network takes."""
    if name != "dlib":
        return Path(args.shared) / "data" / "lfw112"
    if args.dlib is None:
        raise SystemExit("dlib's network takes crops of its own: --dlib LFW (see --help)")
    return Path(args.dlib)


def lfw_crops(folder: Path, contract: FaceContract, count: int | None) -> Crops:
    """Crops in the order in which the pairs need them; the pairs are taken from all folds alike."""
    (people,) = load_eval(f"lfw={folder}", contract)
    assert isinstance(people, EvalSet)
    assert people.pairs is not None
    pairs = people.pairs
    mixed = np.random.default_rng(0).permutation(len(pairs.a))
    both = np.stack([pairs.a, pairs.b], axis=1)[mixed].ravel()
    order = both[np.sort(np.unique(both, return_index=True)[1])]
    place = np.empty(len(people.faces.images), np.int64)
    place[order] = np.arange(len(order))
    moved = Pairs(place[pairs.a], place[pairs.b], pairs.same, pairs.folds)
    return Crops(people.faces.images[order[:count]], moved)


def measure(
    place: Place,
    wanted: list[tuple[str, str]],
    teacher: tuple[FaceModel, Path],
    student_file: Path,
    crops: Crops,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """A row: every wanted client's embeddings against the references."""
    student = load_model(student_file.with_name("student.safetensors"))
    exact = in_integers(student, crops.images[:REFERENCE])
    row: dict[str, Any] = {"crops": len(crops.images), "clients": {}}
    for role, contract, file, reference in (
        ("teacher", teacher[0].contract, teacher[1], None),
        ("student", student.contract, student_file, exact),
    ):
        plain = place.run(PLAIN, file, crops.images, contract)
        if "refused" in plain:
            raise SystemExit(f"{file}: ONNX Runtime refuses it: {plain['refused']}")
        for label, client in wanted:
            where, few = place, FEW.get(client, len(crops.images))
            if label != client:
                emulator = ("qemu-x86_64", "-cpu", args.emulated_cpu)
                where, few = replace(place, emulator=emulator), args.emulated_crops
            again = label != PLAIN
            found = where.run(client, file, crops.images[:few], contract) if again else plain
            cell = judged(found, reference, plain["embeddings"], contract, crops)
            if where.emulator:
                cell["emulator"] = " ".join(where.emulator)
            row["clients"].setdefault(label, {})[role] = cell
            print(file, label, cell.get("refused", cell.get("cosine_to_plain")), flush=True)
    return row


def in_integers(student: FaceModel, images: npt.NDArray[np.uint8]) -> Floats:
    """Embeddings of the student computed in integers."""
    pixels = torch.from_numpy(student.contract.pixels(images))
    return np.asarray(emulate(student, pixels))


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


def cosines(a: Floats, b: Floats) -> list[float]:
    """Mean and least cosine of the rows that both have."""
    count = min(len(a), len(b))
    a, b = a[:count].astype(np.float64), b[:count].astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    each = (a * b).sum(axis=1) / np.maximum(norms, 1e-12)
    return [float(each.mean()), float(each.min())]


def keep(row: dict[str, Any]) -> None:
    """Keep a row; clients that were not run now stay as they are where the crops are the same."""
    known = next((old for old in rows.read("clients") if old["name"] == row["name"]), None)
    if known and known["crops"] == row["crops"]:
        row["clients"] = {**known["clients"], **row["clients"]}
    rows.keep("clients", row)


def told(row: dict[str, Any]) -> str:
    """A line a client: its cosines (mean and least), accuracy and TAR in percent, of the student."""
    lines = []
    for client, cells in row["clients"].items():
        found = cells["student"]
        exact, plain = (_cosine(found, f"cosine_to_{to}") for to in ("integers", "plain"))
        percents = ", ".join(_percent(found, key) for key in ("accuracy", "tar"))
        lines.append(f"{row['name']}/{client}: to the integers {exact}, plain {plain}, {percents}")
    return "\n".join(lines)


def _cosine(cell: dict[str, Any], key: str) -> str:
    if "refused" in cell:
        return str(cell["refused"]).splitlines()[0][:60].replace("|", "/")
    if key not in cell:
        return ""
    mean, least = cell[key]
    return f"{mean:.5f} ({least:.5f})" + (" guessed otherwise" if "warning" in cell else "")


def _percent(cell: dict[str, Any], key: str) -> str:
    return f"{100 * cell[key]:.2f}" if key in cell else "-"


if __name__ == "__main__":
    main()
