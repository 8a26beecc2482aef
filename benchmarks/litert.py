"""Students in LiteRT on LFW: accuracy, TAR, size and speed beside their teachers in the same runtime.

    python benchmarks/litert.py --shared ../shared --work runs/litert --networks \
        y1=RUN mobileface2=RUN edgeface=RUN mobileface2/pruned=RUN mobileface2/w4a8=RUN
    python benchmarks/litert.py ... --crops 64 --rounds 3      # a quick look
    python benchmarks/litert.py ... --only-arm --arm runs/arm  # the same codes on ARM, under qemu

A name begins with a network of SHARED/weights, its teacher; RUN is a folder of `efq compress`. WORK gets
both .tflite files. Each of them is opened in XNNPACK, as clients get it, and timed in turns in one
process. The student's cosine to its own integers is measured in XNNPACK and in LiteRT's own kernels, on
the first 64 crops. --arm is the folder of benchmarks/arm.py, made where it is not there (see its help
for what it needs); the aarch64 wheel of this environment's LiteRT is put beside it. The processor with
8-bit matrix products goes without SME there: under qemu 7.2's SME convolutions of LiteRT are wrong, and
whether qemu or a kernel is at fault is not known. Rows are lines of
benchmarks/results/litert.jsonl.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from arm import DEBIAN_PYTHON, PLATFORMS, PROCESSORS, arm_root, compared, run, write_cpuinfo
from clients import (
    CHILD,
    REFERENCE,
    TEACHERS,
    Crops,
    add_dlib,
    cosines,
    in_integers,
    lfw_crops,
    lfw_folder,
)
from efquantface.embedding.benchmark import measure
from efquantface.embedding.embedder import Embedder
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.graph.graph import module_nodes, name_of
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.rows import mean_cosine
from efquantface.runtime.litert import Interpreter
from efquantface.runtime.litert_file import read_checked, with_outputs
from runner import rows

PACKAGE = "ai-edge-litert"
NEEDED = (PACKAGE, "backports.strenum", "tqdm", "typing-extensions", "protobuf", "ml_dtypes")
ARM_CROPS = 8
EMULATED = {name: name for name in PROCESSORS} | {"max": "max,sme=off"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--networks", type=_named, nargs="+", required=True, metavar="NAME=RUN")
    add_dlib(parser)
    parser.add_argument("--crops", type=int, help="of LFW; all where not given")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--arm", type=Path, metavar="WORK", help="of benchmarks/arm.py")
    parser.add_argument("--only-arm", action="store_true", help="leave the rest of a row as it is")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for name, folder in args.networks:
        known = next((old for old in rows.read("litert") if old["name"] == name), {})
        row = {"name": name, **known}
        teacher = load_model(_teacher(name, args))
        student = load_model(folder)
        count = max(args.crops or ARM_CROPS, ARM_CROPS) if args.only_arm else args.crops
        crops = lfw_crops(lfw_folder(_network(name), args), student.contract, count)
        files = written(name, teacher, student, args.work)
        if not args.only_arm:
            row |= measured(name, files, student, crops, args)
        if args.arm:
            row["arm"] = on_arm(files[1], student, crops, args)
        rows.keep("litert", row)
        print(json.dumps(rows.rounded(row)), flush=True)


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if _network(name) not in (*TEACHERS, "dlib") or not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not NETWORK=RUN, like mobileface2/w4a8=RUN")
    return name, Path(path)


def _network(name: str) -> str:
    return name.partition("/")[0]


def _teacher(name: str, args: argparse.Namespace) -> str:
    network = _network(name)
    if network not in TEACHERS:
        return "dlib-resnet"
    return str(args.shared / "weights" / TEACHERS[network])


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
    name: str, files: tuple[Path, Path], student: FaceModel, crops: Crops, args: argparse.Namespace
) -> dict[str, Any]:
    """A row without what is measured on ARM."""
    embedders = [Embedder.open(path, threads=args.threads) for path in files]
    floats, integers = (embedder.embed(crops.images) for embedder in embedders)
    first = crops.images[:REFERENCE]
    exact, x = in_integers(student, first), student.contract.normalize(first)
    builtin = Interpreter(read_checked(files[1])[0], str(files[1]), builtin=True)(x)[0]
    speed = measure(
        [("float", embedders[0]), ("student", embedders[1])], args.threads, rounds=args.rounds
    )
    return {
        "name": name,
        **rows.stamp(),
        "litert": importlib.metadata.version(PACKAGE),
        "crops": len(crops.images),
        "bytes": {"float": files[0].stat().st_size, "student": files[1].stat().st_size},
        "float": crops.measures(floats),
        "student": crops.measures(integers),
        "cosine_to_float": mean_cosine(floats, integers),
        "cosine_to_integers": {
            "xnnpack": cosines(integers[:REFERENCE], exact),
            "builtin": cosines(builtin, exact),
        },
        "speed": speed.rows(),
        "conditions": speed.conditions(),
    }


def on_arm(
    path: Path, student: FaceModel, crops: Crops, args: argparse.Namespace
) -> dict[str, Any]:
    """Every quantizer's codes, and the embeddings, by processor of qemu against this one."""
    root = arm_root(args.arm.resolve(), args.mirror)
    packages = args.arm.resolve() / "litert"
    if not packages.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary", ":all:"]
        platforms = [word for p in PLATFORMS for word in ("--platform", p)]
        wheels = [f"{n}=={importlib.metadata.version(n)}" for n in NEEDED if _is_here(n)]
        target = ["--python-version", DEBIAN_PYTHON, "--target", str(packages)]
        run([*pip, *platforms, *target, *wheels])
    data, stored = read_checked(path)
    names = stored.names()
    tensors = [
        names[name_of(node)]
        for node, module in module_nodes(student.graph)
        if isinstance(module, ActivationQuantizer | InputQuantizer)
    ]
    found: dict[str, Any] = {"litert": importlib.metadata.version(PACKAGE), "crops": ARM_CROPS}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        np.save(work / "crops.npy", crops.images[:ARM_CROPS])
        (work / "contract.json").write_text(student.contract.to_json())
        (work / "m.tflite").write_bytes(with_outputs(data, stored, (stored.ends[1], *tensors)))
        here = _outputs([sys.executable], work)
        for processor in PROCESSORS:
            write_cpuinfo(root, processor)
            python = str(root / "usr" / "bin" / f"python{DEBIAN_PYTHON}")
            emulated = ["qemu-aarch64", "-cpu", EMULATED[processor], "-L", str(root), python]
            there = _outputs(emulated, work, f"{packages}:{root / 'wheels'}")
            both = there.pop("embeddings"), here["embeddings"]
            codes = {name: here[name] for name in there}
            found[processor] = {**compared(codes, there), "cosine_to_x86": cosines(*both)}
    return found


def _is_here(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _outputs(python: list[str], work: Path, packages: str = "") -> dict[str, Any]:
    """What client.py finds."""
    files = [str(work / n) for n in ("m.tflite", "crops.npy", "contract.json", "out.npz")]
    environment = {"PYTHONPATH": packages} if packages else {}
    run([*python, str(CHILD), "litert", *files], **environment)
    with np.load(work / "out.npz") as arrays:
        outputs = dict(arrays.items())
    if "refused" in outputs:
        raise SystemExit(f"{' '.join(python)}: {outputs['refused']}")
    return outputs


if __name__ == "__main__":
    main()
