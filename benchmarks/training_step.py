"""What quantizers cost in training: a step of the quantized network against the float one's.

python benchmarks/training_step.py --teacher ../shared/weights/y1.onnx --batch 32

The float network is compiled by torch.compile, and in the form in which pruned networks are trained.
"""

from __future__ import annotations

import argparse
import copy
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from commands import command_line
from efquantface.distill.losses import cosine_loss
from efquantface.importers.load import load_model
from efquantface.quantize.float_student import trainable
from efquantface.quantize.fused import fused
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.environment import environment
from efquantface.runtime.memory import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", required=True, help="a file, or the name of a default")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    keep_freed_memory()
    model = load_model(args.teacher)
    c = model.contract
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(
        rng.integers(0, 256, (args.batch, 3, c.height, c.width), dtype=np.uint8)
    )
    target = model.embed_pixels(pixels)
    student = quantize(model, Scheme())
    set_ranges(student.graph, [pixels[:16]])
    x = pixels.float().contiguous(memory_format=torch.channels_last)
    steps = {}
    forms = {
        "torch.compile": (copy.deepcopy(model.graph), partial(torch.compile, dynamic=False)),
        "float": (trainable(model).graph, lambda graph: graph),
        "quantized": (student.graph, fused),
    }
    for name, (graph, prepare) in forms.items():
        graph.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW([p for p in graph.parameters() if p.requires_grad], lr=1e-6)
        fast = prepare(graph)

        def step(fast=fast, optimizer=optimizer) -> None:
            cosine_loss(fast(x), target).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        began = time.monotonic()
        step()
        print(f"{name}: first step (with compiling) {time.monotonic() - began:.0f} s", flush=True)
        steps[name] = step
    times = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - began)
    compiled = np.array(times["torch.compile"][2:])
    env = environment()
    print(
        f"{Path(args.teacher).name}, batch {args.batch}, {torch.get_num_threads()} threads, "
        f"{env['processor']}, torch {env['packages']['torch']}, {time.strftime('%Y-%m-%d')}, "
        f"`{command_line()}`: torch.compile {np.median(compiled):.3f} s"
    )
    for name in ("float", "quantized"):
        found = np.array(times[name][2:])
        low, middle, high = np.percentile(found / compiled, (25, 50, 75))
        print(
            f"{name} {np.median(found):.3f} s, ratio {middle:.2f} "
            f"(quartiles {low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
