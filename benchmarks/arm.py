"""The same codes on ARM: a runtime's aarch64 wheel under qemu against the same version on x86.

    sudo apt install qemu-user debootstrap
    python benchmarks/arm.py --shared ../shared --work WORK --dlib LFW150 --runs \
        y1=RUN mobileface2=RUN edgeface_xs=RUN dlib=RUN
    python benchmarks/arm.py --shared ../shared --work WORK --runtime litert --crops 8 --runs y1=RUN

WORK gets Debian's arm64 Python and the wheels (benchmarks/runner/places.py). Processors: cortex-a72
has NEON alone, neoverse-n1 the dot product (SDOT, UDOT), max the matrix product of 8 bits (SMMLA,
UMMLA), too. Every quantizer's codes are made outputs of the file, as in the parity check. For LiteRT,
max goes without SME: under qemu 7.2's SME its convolutions are wrong, and whether qemu or a kernel is at
fault is not known. Crops for dlib: benchmarks/README.md. Rows: benchmarks/results/arm.jsonl.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.graph.graph import module_nodes, name_of
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from runner import rows
from runner.crops import Floats, cosines, in_integers, lfw_crops
from runner.places import MIRROR, PROCESSORS, Codes, Place, on_arm
from runner.script import add_runs, lfw_folder, parser


def main() -> None:
    words = parser(__doc__)
    add_runs(words, crops=32)
    words.add_argument("--work", type=Path, required=True, help="for Debian's packages: 1 GB")
    words.add_argument("--runtime", choices=RUNTIMES, default="onnxruntime")
    words.add_argument("--processors", nargs="+", choices=PROCESSORS, default=[*PROCESSORS])
    words.add_argument("--mirror", default=MIRROR)
    args = words.parse_args()
    for name, run in args.runs:
        row = measure(name, run, RUNTIMES[args.runtime], args)
        rows.keep("arm", row)
        for processor, found in row["arm"].items():
            print(
                f"{row['name']}/{processor}: {found['differing']:,} of {found['codes']:,} codes differ, "
                f"by {found['largest_step']} at most; cosine to x86 {found['cosine_to_x86'][0]:.6f}",
                flush=True,
            )


def measure(name: str, run: Path, runtime: Runtime, args: argparse.Namespace) -> rows.Row:
    """A row: each processor's codes and embeddings against those of x86."""
    student = load_model(run / "student.safetensors")
    images = lfw_crops(lfw_folder(name, args), student.contract, args.crops).images
    package = runtime.wheels[0]
    row: rows.Row = {
        "name": name if args.runtime == "onnxruntime" else f"{name} in {args.runtime}",
        "crops": len(images),
        args.runtime: importlib.metadata.version(package),
        "qemu": subprocess.check_output(["qemu-aarch64", "--version"], text=True).split("\n")[0],
        **rows.stamp(),
        "arm": {},
    }
    installed = {found.name for found in importlib.metadata.distributions()}
    wheels = [wheel for wheel in runtime.wheels if wheel in installed]
    with tempfile.TemporaryDirectory() as folder:
        file, labels = runtime.with_codes(run, student, Path(folder))

        def outputs(place: Place) -> tuple[Codes, Floats]:
            found = place.outputs(runtime.client, file, images, student.contract)
            mine = found.pop("embeddings")
            if runtime.itself:  # without outputs in between, which keep operators from being fused
                whole = place.outputs(
                    runtime.itself, run / "student.onnx", images, student.contract
                )
                mine = whole["embeddings"]
            return {labels.get(tensor, tensor): codes for tensor, codes in found.items()}, mine

        here, plain = outputs(Place())
        exact = in_integers(student, images)
        row["x86_cosine_to_integers"] = cosines(plain, exact)
        for processor, place in on_arm(args.work, wheels, args.mirror, runtime.models):
            if processor in args.processors:
                there, embeddings = outputs(place)
                row["arm"][processor] = {
                    **compared(here, there),
                    "cosine_to_integers": cosines(embeddings, exact),
                    "cosine_to_x86": cosines(embeddings, plain),
                    "equal_embeddings": bool((embeddings == plain).all()),
                }
    return row


def compared(here: Codes, there: Codes) -> rows.Row:
    """How many codes differ, by how much, and the first quantizer (in the file's order) that does."""
    steps = {n: np.abs(here[n].astype(np.int32) - there[n].astype(np.int32)) for n in here}
    first = next((n for n, s in steps.items() if s.any()), None)
    return {
        "quantizers": len(steps),
        "codes": sum(s.size for s in steps.values()),
        "differing": sum(int((s > 0).sum()) for s in steps.values()),
        "largest_step": max(int(s.max()) for s in steps.values()),
        "first": first
        and {
            "quantizer": first,
            "differing": float((steps[first] > 0).mean()),
            "largest_step": int(steps[first].max()),
        },
    }


def onnx_with_codes(run: Path, student: FaceModel, folder: Path) -> tuple[Path, dict[str, str]]:
    """The file with every quantizer's codes as outputs, too, and their names by tensor."""
    model = onnx.load(str(run / "student.onnx"))
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
    onnx.save(model, str(folder / "codes.onnx"))
    return folder / "codes.onnx", labels


def litert_with_codes(run: Path, student: FaceModel, folder: Path) -> tuple[Path, dict[str, str]]:
    """The same of the .tflite, whose tensors have the quantizers' names."""
    from efquantface.runtime.litert_file import read_checked, with_outputs

    file = folder / "student.tflite"
    deliver(student, FORMATS["tflite"], file)
    data, stored = read_checked(file)
    names = stored.names()
    tensors = [
        names[name_of(node)]
        for node, module in module_nodes(student.graph)
        if isinstance(module, ActivationQuantizer | InputQuantizer)
    ]
    file.write_bytes(with_outputs(data, stored, (stored.ends[1], *tensors)))
    return file, {}


@dataclass(frozen=True)
class Runtime:
    """How a runtime is asked for codes.

    Attributes:
        client: of client.py, gives all outputs; ``itself`` the embeddings of the file as it is.
        wheels: the runtime's, and what it needs of other packages, where that is here.
        models: what qemu is told in place of a processor's name.
    """

    client: str
    itself: str | None
    wheels: tuple[str, ...]
    with_codes: Callable[[Path, FaceModel, Path], tuple[Path, dict[str, str]]]
    models: Mapping[str, str] = field(default_factory=dict)


_LITERT = ("ai-edge-litert", "numpy", "backports.strenum", "tqdm", "typing_extensions", "protobuf")
RUNTIMES = {
    "onnxruntime": Runtime("codes", "onnxruntime", ("onnxruntime", "numpy"), onnx_with_codes),
    "litert": Runtime(
        "litert",
        None,
        (*_LITERT, "ml_dtypes", "flatbuffers"),
        litert_with_codes,
        {"max": "max,sme=off"},
    ),
}


if __name__ == "__main__":
    main()
