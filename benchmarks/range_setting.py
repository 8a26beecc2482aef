"""Ranges and rounding without training: what each way of setting them leaves of the embedding.

    python benchmarks/range_setting.py --shared ../shared

Mean 1 - cosine to the teacher on 256 crops of held-out identities of faces6k, fake-quantized student,
for each way and bit width; each way adds to the one above it but for the ranges, which are compared
on their own. Ways that are not in the product live in this file. Cells go one by one to
benchmarks/results/range_setting.json; those that are there are not computed again.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from commands import command_line
from efquantface.data.faces import load_faces, split
from efquantface.graph.fitting import Stepper
from efquantface.graph.graph import name_of
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.pipeline.start import calibration_batches
from efquantface.quantize import ranges
from efquantface.quantize.borders import equalize_borders
from efquantface.quantize.equalize import equalize
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.placement import quantize, quantizer_before
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.reconstruct import reconstruct
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.environment import environment

CELLS = Path(__file__).parent / "results" / "range_setting.json"
TEACHERS = {"y1": None, "foamliu_mobilefacenet": "imagenet"}
BITS = ("w8a8", "w6a8", "w4a8", "w6a6", "w4a4")
WAYS = (
    "min-max",
    "percentile 99.99",
    "least squared error",
    "+ equalization",
    "+ bias correction",
    "+ AdaRound",
    "+ reconstruction (product)",
)


def min_max(values: torch.Tensor, low: float, high: float, quantizer: ActivationQuantizer) -> tuple:
    return (0.0 if quantizer.rectified else min(low, 0.0)), max(high, 1e-6)


def percentile(
    values: torch.Tensor, low: float, high: float, quantizer: ActivationQuantizer
) -> tuple:
    found = np.percentile(values.numpy(), [0.01, 99.99])
    return min_max(values, float(found[0]), float(found[1]), quantizer)


def largest(weight: torch.Tensor, limit: int) -> torch.Tensor:
    return weight.flatten(1).abs().amax(dim=1).clamp(min=1e-12) / limit


@torch.no_grad()
def correct_biases(student: torch.fx.GraphModule, teacher: torch.fx.GraphModule, pixels) -> None:
    """Each layer's mean error per channel goes into its bias, layer after layer."""
    ours, theirs = Stepper(student, pixels.float()), Stepper(teacher, pixels.float())
    while (at := ours.step()) is not None:
        node, module = at
        if isinstance(module, QuantConv2d | QuantLinear):
            wanted = theirs.until(name_of(node))
            error = (wanted - module(*ours.inputs(node))).transpose(0, 1).flatten(1).mean(dim=1)
            module.latent_bias += error / module.bias_unit
            module.refresh_bias(quantizer_before(student, node).qparams()[0])
        ours.finish(node, module)


def adaround(
    student: torch.fx.GraphModule,
    teacher: torch.fx.GraphModule,
    pixels: torch.Tensor,
    steps: int = 400,
) -> None:
    """Up or down for each weight, learned against the teacher's output of the layer (Nagel 2020)."""
    with torch.no_grad():
        ours, theirs = Stepper(student, pixels.float()), Stepper(teacher, pixels.float())
        while (at := ours.step()) is not None:
            node, module = at
            if isinstance(module, QuantConv2d | QuantLinear):
                wanted, x = theirs.until(name_of(node)), ours.inputs(node)[0]
                with torch.enable_grad():
                    _learn_rounding(module, x, wanted, steps)
            ours.finish(node, module)


def _learn_rounding(layer, x: torch.Tensor, wanted: torch.Tensor, steps: int) -> None:
    unit = layer.scale().detach().view(-1, *(1,) * (layer.latent.dim() - 1))
    scaled = layer.weight.detach() / unit
    floor = scaled.floor()
    rest = (scaled - floor).clamp(1e-4, 1 - 1e-4)
    # rectified sigmoid, stretched to -0.1..1.1, starts at the weight itself
    slope = torch.logit((rest + 0.1) / 1.2).requires_grad_()
    bias = layer.quantized_bias().detach()
    optimizer = torch.optim.Adam([slope], lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        pick = torch.randint(len(x), (16,), generator=generator)
        up = (torch.sigmoid(slope) * 1.2 - 0.1).clamp(0, 1)
        weight = (floor + up).clamp(-layer.limit, layer.limit) * unit
        if isinstance(layer, QuantLinear):
            out = F.linear(x[pick], weight, bias)
        else:
            out = F.conv2d(
                x[pick], weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups
            )
        loss = (out - wanted[pick]).square().mean() / wanted[pick].square().mean()
        if step > steps // 5:
            beta = 20 - 18 * (step - steps / 5) / (0.8 * steps)
            loss = loss + 0.01 * (1 - (2 * up - 1).abs().pow(beta)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        chosen = floor + (slope > torch.logit(torch.tensor(0.5))).float()
        layer.latent.copy_(
            chosen.clamp(-layer.limit, layer.limit) * unit / layer._shaped(layer.unit)
        )


def student_of(way: str, bits: str, model: FaceModel, equal: FaceModel, batches: list) -> FaceModel:
    index = WAYS.index(way)
    teacher = equal if index >= 3 else model
    searches = ranges.search_range, ranges.search_weight_scales
    if index == 0:
        ranges.search_range, ranges.search_weight_scales = min_max, largest
    elif index == 1:
        ranges.search_range = percentile
    try:
        student = quantize(teacher, Scheme.parse(bits))
        set_ranges(student.graph, batches)
    finally:
        ranges.search_range, ranges.search_weight_scales = searches
    crops = torch.cat(batches)[:192]
    if way.endswith("AdaRound"):
        adaround(student.graph, teacher.graph, crops[:64])
    if way.endswith(("bias correction", "AdaRound")):
        correct_biases(student.graph, teacher.graph, crops[:96])
    if "reconstruction" in way:
        reconstruct(student.graph, teacher.graph, crops)
    return student


@torch.no_grad()
def loss(student: FaceModel, pixels: torch.Tensor, wanted: torch.Tensor) -> float:
    found = torch.cat([student.graph(part.float()) for part in torch.split(pixels, 64)])
    return float((1 - F.cosine_similarity(found, wanted)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--only", action="append", help='cells whose name begins so, "y1|min-max"')
    args = parser.parse_args()
    wanted_cells = tuple(args.only or ("",))
    if args.threads:
        torch.set_num_threads(args.threads)
    rows: dict[str, list[float]] = json.loads(CELLS.read_text()) if CELLS.is_file() else {}
    for teacher, preprocess in TEACHERS.items():
        model = load_model(args.shared / "weights" / f"{teacher}.onnx", preprocess=preprocess)
        faces = load_faces(args.shared / "data" / "faces6k", model.contract)
        train, held = split(faces, 0.1, 0)
        batches = calibration_batches(model, faces, train)
        pick = held[:: max(len(held) // 256, 1)][:256]
        pixels = torch.from_numpy(model.contract.pixels(faces.images[pick]))
        wanted = model.embed_pixels(pixels)
        equal = copy.deepcopy(model)
        equalize(equal.graph, batches)
        equalize_borders(equal.graph, batches)
        for way in WAYS:
            for bits in BITS:
                key = f"{teacher}|{way}|{bits}"
                if key in rows or not key.startswith(wanted_cells):
                    continue
                began = time.monotonic()
                student = student_of(way, bits, model, equal, batches)
                seconds = time.monotonic() - began
                rows[key] = [loss(student, pixels, wanted), seconds]
                print(key, rows[key], flush=True)
                CELLS.write_text(json.dumps(rows, indent=1))
    print(table(rows))


def table(rows: dict[str, list[float]]) -> str:
    env = environment()
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, {env['threads']} cores, torch "
        f"{env['packages']['torch']}; `{command_line()}`",
        "",
        "| | | " + " | ".join(BITS) + " | seconds, w4a8 |",
        "|---" * (len(BITS) + 3) + "|",
    ]
    for teacher in TEACHERS:
        for way in WAYS:
            found = [rows.get(f"{teacher}|{way}|{bits}") for bits in BITS]
            cells = [f"{f[0]:.4f}" if f else "" for f in found]
            seconds = f"{found[2][1]:.0f}" if found[2] else ""
            lines.append(f"| {teacher} | {way} | " + " | ".join(cells) + f" | {seconds} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
