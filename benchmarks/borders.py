"""What evening out channels at the borders of float islands brings an untrained W8A8 student.

python benchmarks/borders.py --teacher ../shared/weights/edgeface_xs.onnx --faces ../shared/data/faces6k
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from commands import command_line
from efquantface.data.faces import load_faces
from efquantface.importers.load import load_model
from efquantface.pipeline.start import calibration_batches
from efquantface.quantize.borders import equalize_borders
from efquantface.quantize.equalize import equalize
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.reconstruct import reconstruct
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.environment import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--faces", type=Path, required=True)
    args = parser.parse_args()
    model = load_model(args.teacher)
    faces = load_faces(args.faces, model.contract)
    train = np.arange(len(faces) - 512)
    batches = calibration_batches(model, faces, train, count=128)
    others = torch.from_numpy(model.contract.pixels(faces.images[-512:]))
    wanted = torch.cat([model.embed_pixels(part) for part in torch.split(others, 32)])
    env = environment()
    print(
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, torch {env['packages']['torch']}, 512 "
        f"crops not calibrated on; `{command_line()}`\n\n"
        "| borders | rounding | 1 - cosine to the teacher |\n|---|---|---|"
    )
    for borders in (False, True):
        teacher = copy.deepcopy(model)
        equalize(teacher.graph, batches)
        count = equalize_borders(teacher.graph, batches) if borders else 0
        student = quantize(teacher, Scheme())
        set_ranges(student.graph, batches)
        for rounding in ("nearest", "reconstruct"):
            if rounding == "reconstruct":
                reconstruct(student.graph, teacher.graph, torch.cat(batches))
            found = torch.cat([student.embed_pixels(part) for part in torch.split(others, 32)])
            apart = float((1 - F.cosine_similarity(found, wanted)).mean())
            what = f"{count} evened out" if borders else "as they are"
            print(f"| {what} | {rounding} | {apart:.4f} |", flush=True)


if __name__ == "__main__":
    main()
