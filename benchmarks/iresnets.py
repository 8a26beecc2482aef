"""IResNets with random weights the whole way, and what a training step of them takes.

    python benchmarks/iresnets.py --out runs/iresnets --depths 18 50 100

For each depth: a checkpoint in arcface_torch's names saved and loaded back, the module exported to ONNX
by PyTorch and imported, quantized to W8A8, exported and checked, and fine-tuning begun and stopped
after a few steps, whose plan and peak memory are stated. Each depth runs in a process of its own, so
that peaks are its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from commands import command_line
from efquantface.backbones.iresnet import IResNet
from efquantface.contract import FaceContract
from efquantface.distill.memory import peak_memory_mb
from efquantface.distill.settings import TrainData, TrainSettings
from efquantface.distill.trainer import fine_tune
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.parity import check_parity
from efquantface.importers.load import load_model
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.environment import environment
from efquantface.runtime.memory import keep_freed_memory

_CONTRACT = FaceContract(112, 112, 512)
_STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--depths", type=int, nargs="+", default=[18, 50, 100])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--memory-gb", type=float, default=8.0)
    parser.add_argument("--one", type=int, help="(internal) this depth, in this process")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.one:
        (args.out / f"{args.one}.json").write_text(json.dumps(one(args.one, args), indent=1))
        return
    env = environment()
    print(
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, {torch.get_num_threads()} threads, torch "
        f"{env['packages']['torch']}, ONNX Runtime {env['packages']['onnxruntime']}; "
        f"`{command_line()}`\n\n"
        "| | checkpoint, largest difference | ONNX | int8 convolutions | parity, cosine | batch "
        "| ms an image | peak memory GB, before training and after |\n|---|---|---|---|---|---|---|---|"
    )
    for depth in args.depths:
        subprocess.run([sys.executable, *sys.argv, "--one", str(depth)], check=True)
        r = json.loads((args.out / f"{depth}.json").read_text())
        print(
            f"| IResNet-{depth} | {r['checkpoint']:.1e} | {r['onnx']:.1e} | {r['int8']} | "
            f"{r['parity']:.5f} | {r['batch']} | {r['ms']:.0f} | "
            f"{r['before_gb']:.1f}, {r['peak_gb']:.1f} |",
            flush=True,
        )


@torch.no_grad()
def trained_like(depth: int) -> IResNet:
    """Random weights with BatchNorm statistics that fit them, as training would leave them."""
    torch.manual_seed(depth)
    network = IResNet(depth).train()
    for _ in range(2):
        network(torch.rand(8, 3, 112, 112) * 2 - 1)
    return network.eval()


def one(depth: int, args: argparse.Namespace) -> dict[str, object]:
    """Everything for one depth."""
    keep_freed_memory()
    network = trained_like(depth)
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (_STEPS * args.batch + 8, 112, 112, 3), dtype=np.uint8)
    x = torch.from_numpy(_CONTRACT.normalize(faces[:4]))
    with torch.no_grad():
        expected = network(x).numpy()
    largest = np.abs(expected).max()

    torch.save(network.state_dict(), args.out / f"iresnet{depth}.pth")
    model = load_model(args.out / f"iresnet{depth}.pth")
    again = model.embed_pixels(torch.from_numpy(_CONTRACT.pixels(faces[:4]))).numpy()
    file = args.out / f"iresnet{depth}.onnx"
    torch.onnx.export(network, (x[:1],), str(file), dynamo=False, opset_version=13)
    imported = load_model(file, preprocess="insightface")
    through = imported.embed_pixels(torch.from_numpy(_CONTRACT.pixels(faces[:4]))).numpy()

    pixels = _CONTRACT.pixels(faces)
    student = quantize(model, Scheme())
    set_ranges(student.graph, [torch.from_numpy(pixels[:16])])
    write_onnx(student, args.out / "student.onnx")
    parity = check_parity(student, args.out / "student.onnx", faces[:4], expected)
    parity.check(args.out / "student.onnx")
    found = parity.executed

    teacher = rng.normal(size=(len(faces), 512)).astype(np.float32)
    train = slice(0, _STEPS * args.batch)
    data = TrainData(
        pixels[train], teacher[train], teacher[train], pixels[train.stop :], teacher[train.stop :]
    )
    settings = TrainSettings(epochs=20, batch_size=args.batch, memory_gb=args.memory_gb)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        print(text, file=sys.stderr, flush=True)

    steps: list[float] = []

    def progress(*_: float) -> None:
        steps.append(time.monotonic())
        if len(steps) == _STEPS:
            raise KeyboardInterrupt

    before = peak_memory_mb() / 1024
    with suppress(KeyboardInterrupt):
        fine_tune(student, data, settings, args.out / f"{depth}.pt", say=say, progress=progress)
    return {
        "checkpoint": float(np.abs(again - expected).max() / largest),
        "onnx": float(np.abs(through - expected).max() / largest),
        "int8": f"{found.integer_convolutions} of {found.convolutions}",
        "parity": parity.cosine,
        "batch": next(t for t in said if t.startswith("a batch of")).partition(" takes")[0],
        "ms": 1000 * float(np.diff(steps).mean()) / args.batch,
        "before_gb": before,
        "peak_gb": peak_memory_mb() / 1024,
    }


if __name__ == "__main__":
    main()
