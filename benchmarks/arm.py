"""The same codes on ARM: ONNX Runtime's aarch64 wheel under qemu against the same version on x86.

    sudo apt install qemu-user debootstrap
    python benchmarks/arm.py --shared ../shared --work runs/arm --dlib LFW150 --students \
        y1=RUN/student.onnx mobileface2=RUN/student.onnx edgeface=RUN/student.onnx dlib=RUN/student.onnx

WORK gets Debian's arm64 packages by debootstrap (its first stage, which runs nothing of ARM), unpacked,
and the aarch64 wheels of this environment's ONNX Runtime and NumPy. qemu-aarch64 runs that Python with
the folder in front of the system's paths (-L): neither chroot nor binfmt_misc is needed. The folder
holds a /proc/cpuinfo of ARM, since ONNX Runtime ends with a segmentation fault on that of x86.

Processors: cortex-a72 has NEON alone, neoverse-n1 the dot product (SDOT, UDOT), max the matrix product
of 8 bits (SMMLA, UMMLA), too. Every quantizer's codes are made outputs of the file, as in the parity
check. Rows are lines of benchmarks/results/arm.jsonl. --dlib is as in benchmarks/clients.py.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from clients import (
    CHILD,
    PLAIN,
    add_arguments,
    cosines,
    in_integers,
    lfw_crops,
    lfw_folder,
)
from efquantface.contract import FaceContract
from efquantface.importers.load import load_model
from runner import rows

SUITE = "bookworm"
DEBIAN_PYTHON = "3.11"
WHEELS = ("onnxruntime", "numpy")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
NEWER = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm asimddp"
# name in qemu: part number and features, for /proc/cpuinfo: cpuinfo, of ONNX Runtime, goes by both
PROCESSORS = {
    "cortex-a72": ("0xd08", "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"),
    "neoverse-n1": ("0xd0c", NEWER),
    "max": ("0xd0c", f"{NEWER} i8mm"),
}
CPUINFO = """processor\t: {number}
BogoMIPS\t: 50.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: {part}
CPU revision\t: 1

"""

Codes = dict[str, npt.NDArray[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--crops", type=int, default=32)
    parser.add_argument(
        "--processors", nargs="+", choices=PROCESSORS, default=[*PROCESSORS], help="of qemu-aarch64"
    )
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    args = parser.parse_args()
    root = arm_root(args.work.resolve(), args.mirror)
    for name, path in args.students:
        row = measure(name, path, root, args)
        rows.keep("arm", row)
        print(told(row), flush=True)


def arm_root(work: Path, mirror: str) -> Path:
    """A folder with Debian's arm64 Python and the wheels (in ``wheels``), made where it is not there."""
    root, done = work / "root", work / "complete"
    if done.is_file():
        return root
    work.mkdir(parents=True, exist_ok=True)
    stage = ["debootstrap", "--arch", "arm64", "--foreign", "--variant", "minbase"]
    run([*stage, "--include", "python3", SUITE, str(work / "debootstrap"), mirror])
    for package in sorted((work / "debootstrap" / "var/cache/apt/archives").glob("*.deb")):
        run(["dpkg-deb", "-x", str(package), str(root)])
    pip = [sys.executable, "-m", "pip", "install", "-q", "--only-binary", ":all:"]
    platforms = [word for p in PLATFORMS for word in ("--platform", p)]
    wheels = [f"{name}=={importlib.metadata.version(name)}" for name in WHEELS]
    target = ["--python-version", DEBIAN_PYTHON, "--target", str(root / "wheels")]
    run([*pip, *platforms, *target, *wheels])
    done.touch()
    return root


def write_cpuinfo(root: Path, processor: str) -> None:
    """The /proc/cpuinfo that a processor's own Linux shows."""
    part, features = PROCESSORS[processor]
    text = "".join(
        CPUINFO.format(number=number, part=part, features=features)
        for number in range(os.cpu_count() or 1)
    )
    (root / "proc" / "cpuinfo").write_text(text)


def run(command: list[str], **environment: str) -> None:
    """Run a command; what it prints is shown where it fails."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\nended with {done.returncode}")


def measure(name: str, path: Path, root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """A row: each processor's codes and embeddings against those of x86."""
    student = load_model(path.with_name("student.safetensors"))
    images = lfw_crops(lfw_folder(name, args), student.contract, args.crops).images
    row: dict[str, Any] = {
        "name": name,
        "crops": len(images),
        "onnxruntime": importlib.metadata.version("onnxruntime"),
        "qemu": subprocess.check_output(["qemu-aarch64", "--version"], text=True).split("\n")[0],
        **rows.stamp(),
        "arm": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        np.save(work / "crops.npy", images)
        labels = with_codes(path, work / "codes.onnx")
        files = (work / "codes.onnx", path.resolve())
        here, plain = outputs([sys.executable], files, work, student.contract)
        exact = in_integers(student, images)
        row["x86_cosine_to_integers"] = cosines(plain, exact)
        for processor in args.processors:
            write_cpuinfo(root, processor)
            python = str(root / "usr" / "bin" / f"python{DEBIAN_PYTHON}")
            emulated = ["qemu-aarch64", "-cpu", processor, "-L", str(root), python]
            there, embeddings = outputs(emulated, files, work, student.contract, root / "wheels")
            row["arm"][processor] = {
                **compared(*({labels[t]: c[t] for t in labels} for c in (here, there))),
                "cosine_to_integers": cosines(embeddings, exact),
                "cosine_to_x86": cosines(embeddings, plain),
                "equal_embeddings": bool((embeddings == plain).all()),
            }
    return row


def with_codes(path: Path, out: Path) -> dict[str, str]:
    """Write the file with every quantizer's codes as outputs, too: their names, by tensor."""
    model = onnx.load(str(path))
    values = onnx.shape_inference.infer_shapes(model).graph.value_info
    kinds = {v.name: v.type.tensor_type.elem_type for v in values}
    labels = {}
    makers = {o: node for node in model.graph.node for o in node.output}
    for node in model.graph.node:
        integer = kinds.get(node.output[0]) in (TensorProto.UINT8, TensorProto.INT8)
        if node.op_type in ("QuantizeLinear", "Clip") and integer:
            kind = kinds[node.output[0]]
            model.graph.output.append(helper.make_tensor_value_info(node.output[0], kind, None))
            before = makers.get(node.input[0])
            labels[node.output[0]] = f"{node.name} after {before.op_type if before else 'input'}"
    onnx.save(model, str(out))
    return labels


def outputs(
    python: list[str],
    files: tuple[Path, Path],
    work: Path,
    contract: FaceContract,
    packages: Path | None = None,
) -> tuple[Codes, npt.NDArray[np.float32]]:
    """The codes of the file that gives them, and the embeddings of the file itself, by client.py."""
    (work / "contract.json").write_text(contract.to_json())
    environment = {"PYTHONPATH": str(packages)} if packages else {}
    found = []
    for client, file in zip(("codes", PLAIN), files, strict=True):
        words = [
            str(CHILD),
            client,
            str(file),
            *(str(work / n) for n in ("crops.npy", "contract.json")),
        ]
        run([*python, *words, str(work / "out.npz")], **environment)
        with np.load(work / "out.npz") as arrays:
            found.append(dict(arrays.items()))
        if "refused" in found[-1]:
            raise SystemExit(f"{' '.join(python)}: {file}: {found[-1]['refused']}")
    codes, embeddings = found
    del codes["embeddings"]
    return codes, embeddings["embeddings"]


def compared(here: Codes, there: Codes) -> dict[str, Any]:
    """How many codes differ, by how much, and the first quantizer (in the file's order) that does."""
    steps = {n: np.abs(here[n].astype(np.int32) - there[n].astype(np.int32)) for n in here}
    first = next((n for n, s in steps.items() if s.any()), None)
    return {
        "quantizers": len(steps),
        "codes": sum(s.size for s in steps.values()),
        "differing": sum(int((s > 0).sum()) for s in steps.values()),
        "largest_step": max(int(s.max()) for s in steps.values()),
        "first": None
        if first is None
        else {
            "quantizer": first,
            "differing": float((steps[first] > 0).mean()),
            "largest_step": int(steps[first].max()),
        },
    }


def told(row: dict[str, Any]) -> str:
    """A line a processor."""
    return "\n".join(
        f"{row['name']}/{processor}: {found['differing']:,} of {found['codes']:,} codes differ, by "
        f"{found['largest_step']} at most; cosine to x86 {found['cosine_to_x86'][0]:.6f}"
        for processor, found in row["arm"].items()
    )


if __name__ == "__main__":
    main()
