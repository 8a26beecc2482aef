"""Speed of W8A8 files beside their rivals, in turns, as ratios.

    pip install nncf
    python benchmarks/speed.py --shared ../shared --student RUN_OF_Y1_W8A8 --out runs/speed

y1 in ONNX Runtime (the user's file, the best float form, ours) and in OpenVINO (float, NNCF's
post-training file, ours); IResNet-18 and -50 with random weights against their best float form. One
and two threads, batch 1 and 16. Writes OUT/speed.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from commands import command_line
from efquantface import Embedder
from efquantface.backbones.iresnet import IResNet
from efquantface.contract import FaceContract
from efquantface.data.faces import load_faces, split
from efquantface.embedding.benchmark import benchmark
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.operators import executed
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.importers.load import load_model
from efquantface.pipeline.start import calibration_index
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.environment import environment


def nncf_file(
    teacher: Path, contract: FaceContract, inputs: np.ndarray, out: Path, name: str = "nncf"
) -> Path:
    """NNCF's post-training quantization of the user's file, as its users call it."""
    target = out / f"{name}.xml"
    if not target.is_file():
        import nncf
        import openvino as ov

        model = ov.convert_model(str(teacher))
        dataset = nncf.Dataset([inputs[i : i + 1] for i in range(len(inputs))])
        quantized = nncf.quantize(model, dataset, subset_size=len(inputs))
        ov.save_model(quantized, str(target), compress_to_fp16=False)
        target.with_suffix(".contract.json").write_text(contract.to_json())
    return target


def _nncf(teacher: Path, contract: FaceContract, args: argparse.Namespace) -> Path:
    """NNCF's file, its ranges from the images that ours are searched on."""
    faces = load_faces(args.shared / "data" / "faces6k", contract)
    index = calibration_index(split(faces, 0.1, 0)[0])
    return nncf_file(teacher, contract, contract.normalize(faces.images[index]), args.out)


def _placed(args: argparse.Namespace) -> Path:
    """Ours with the placement for OpenVINO."""
    placed = args.out / "ours.xml"
    deliver(load_model(args.student), FORMATS["openvino"], placed)
    return placed


def iresnet(depth: int, out: Path) -> tuple[Path, Path, str]:
    """(best float form, W8A8 file, what runs in integers) of an IResNet with random weights."""
    torch.manual_seed(0)
    contract = FaceContract(112, 112, 512)
    model = load_model(IResNet(depth).eval(), contract=contract)
    floating, integer = out / f"r{depth}_float.onnx", out / f"r{depth}_w8a8.onnx"
    write_onnx(model, floating)
    student = quantize(model, Scheme())
    set_ranges(student.graph, [torch.randint(0, 256, (4, 3, 112, 112), dtype=torch.uint8)])
    write_onnx(student, integer)
    return floating, integer, executed(integer).describe()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--student", type=Path, required=True, help="run folder of y1 in W8A8")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--no-openvino", action="store_true", help="ONNX Runtime's groups only")
    parser.add_argument("--depths", type=int, nargs="*", default=[18, 50])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    teacher = args.shared / "weights" / "y1.onnx"
    model = load_model(teacher)
    contract = model.contract
    best = args.out / "y1_float.onnx"
    write_onnx(model, best)
    ours = args.student / "student.onnx"
    env = environment()
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {env['processor']} "
        f"({', '.join(env['instruction_sets'])}), ONNX Runtime "
        f"{env['packages']['onnxruntime']}, OpenVINO {env['packages']['openvino']}; "
        f"`{command_line()}`",
        "",
        "| | threads | batch 1, ms | ratio | batch 16, ms | ratio |",
        "|---|---|---|---|---|---|",
    ]
    groups = {
        "y1 in ONNX Runtime": [
            ("user's file", teacher, "onnxruntime"),
            ("best float form", best, "onnxruntime"),
            ("ours", ours, "onnxruntime"),
        ],
    }
    if not args.no_openvino:
        groups["y1 in OpenVINO"] = [
            ("user's file", teacher, "openvino"),
            ("best float form", best, "openvino"),
            ("NNCF", _nncf(teacher, contract, args), "openvino"),
            ("ours, the same file", ours, "openvino"),
            ("ours, `efq export --format openvino`", _placed(args), "openvino"),
        ]
    notes = []
    for depth in args.depths:
        floating, integer, note = iresnet(depth, args.out)
        notes.append(f"IResNet-{depth}: {note}")
        groups[f"IResNet-{depth} in ONNX Runtime"] = [
            ("best float form", floating, "onnxruntime"),
            ("ours", integer, "onnxruntime"),
        ]
    for group, files in groups.items():
        for threads in (1, 2):
            models = [
                (
                    name,
                    Embedder.open(
                        path, backend=backend, contract=contract_of(path, contract), threads=threads
                    ),
                )
                for name, path, backend in files
            ]
            timings = benchmark(models, rounds=args.rounds)
            for name, *_ in files:
                mine = sorted((t for t in timings if t.name == name), key=lambda t: t.batch)
                cells = " | ".join(f"{t.median_ms:.2f} | {t.ratio:.2f}" for t in mine)
                lines.append(f"| {group}: {name} | {threads} | {cells} |")
            print("\n".join(lines[-len(files) :]), flush=True)
    (args.out / "speed.md").write_text("\n".join([*lines, "", *notes, ""]))


def contract_of(path: Path, contract: FaceContract) -> FaceContract | None:
    """Our files bring their own; the user's and NNCF's have none inside."""
    return contract if path.name in ("y1.onnx", "nncf.xml") else None


if __name__ == "__main__":
    main()
