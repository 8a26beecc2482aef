"""Which importance, and what closed-form recovery brings: pruned networks before any training.

python benchmarks/importance.py --teacher ../shared/weights/y1.onnx --faces ../shared/data/faces6k
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from efquantface.data.faces import load_faces
from efquantface.loading import load_model
from efquantface.prune.prune import prune
from efquantface.runtime.environment import environment

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
    order = np.random.default_rng(0).permutation(len(faces))[: _CROPS + _OTHERS]
    pixels = torch.from_numpy(model.contract.pixels(faces.images[order]))
    batches, others = torch.split(pixels[:_CROPS], 32), torch.split(pixels[_CROPS:], 32)
    wanted = torch.cat([model.embed_pixels(part) for part in others])
    env = environment()
    print(
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, torch {env['packages']['torch']}, "
        f"{_OTHERS} other crops; `python {' '.join(sys.argv)}`\n\n"
        "| MACs removed | importance | recovery | parameters left | 1 - cosine to the teacher |\n"
        "|---|---|---|---|---|"
    )
    for share in args.shares:
        for importance in ("taylor", "magnitude"):
            for recover in (False, True):
                pruned = prune(model, list(batches), share, importance=importance, recover=recover)
                found = torch.cat([pruned.model.embed_pixels(part) for part in others])
                apart = float((1 - F.cosine_similarity(found, wanted)).mean())
                print(
                    f"| {pruned.share:.0%} | {importance} | "
                    f"{'closed form' if recover else 'none'} | "
                    f"{pruned.model.parameters / model.parameters:.0%} | {apart:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
