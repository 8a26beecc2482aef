"""Which importance, and what closed-form recovery brings: pruned networks before any training.

python benchmarks/importance.py --teacher ../shared/weights/y1.onnx --faces ../shared/data/faces6k
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from commands import command_line
from efquantface.data.faces import load_faces, split
from efquantface.importers.load import load_model
from efquantface.prune.prune import prune
from efquantface.runtime.environment import environment

WAYS = (
    ("taylor", False, 8),
    ("taylor", True, 1),
    ("taylor", True, 2),
    ("taylor", True, 8),
    ("magnitude", False, 8),
    ("magnitude", True, 8),
)
_CROPS = 192
_OTHERS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5])
    args = parser.parse_args()
    model = load_model(args.teacher)
    faces = load_faces(args.faces, model.contract)
    rng = np.random.default_rng(0)
    train, held = split(faces, 0.1, 0)
    picks = rng.permutation(train)[:_CROPS], rng.permutation(held)[:_OTHERS]
    batches, others = (
        torch.split(torch.from_numpy(model.contract.pixels(faces.images[index])), 32)
        for index in picks
    )
    wanted = torch.cat([model.embed_pixels(part) for part in others])
    env = environment()
    print(
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, torch {env['packages']['torch']}, "
        f"{_OTHERS} crops of other people; `{command_line()}`\n\n"
        "| MACs removed | importance | recovery | rounds | parameters left | 1 - cosine to the teacher "
        "|\n|---|---|---|---|---|---|"
    )
    for share in args.shares:
        for importance, recover, rounds in WAYS:
            pruned = prune(
                model, list(batches), share, importance=importance, recover=recover, rounds=rounds
            )
            found = torch.cat([pruned.model.embed_pixels(part) for part in others])
            apart = float((1 - F.cosine_similarity(found, wanted)).mean())
            print(
                f"| {pruned.share:.0%} | {importance} | {'closed form' if recover else 'none'} | "
                f"{rounds} | {pruned.model.parameters / model.parameters:.0%} | {apart:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
