"""What a file that is right on every processor costs: forms of 8-bit weights without training.

    python benchmarks/portable.py --shared ../shared --threads 1
    python benchmarks/portable.py --shared ../shared --threads 1 --only y1
    python benchmarks/portable.py --trained   # the table of the rows of low_bits, networks and pruning

For each network three forms: all codes (full range), 7 bits in every layer, and pairs of weights limited
(the product). Held-out 1 - cosine to the teacher, on identities of faces6k that ranges were not set
on (dlib's ResNet: synthetic faces); for full range also the mean cosine between sums of 16 bits and
exact ones, emulated on 64 of these crops. Rows: benchmarks/results/portable/NETWORK.json.
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import date
from pathlib import Path

import numpy as np
import torch

from efquantface.console import Console
from efquantface.data.faces import split
from efquantface.data.sources import load_source
from efquantface.embedding.embedder import Embedder
from efquantface.export.emulate import emulate
from efquantface.importers.load import load_model
from efquantface.pipeline.start import calibration_batches, make_start
from efquantface.quantize.scheme import Bits, Scheme
from efquantface.rows import mean_cosine
from efquantface.runtime.environment import environment
from efquantface.runtime.memory import keep_freed_memory
from seeds import losses

ROWS = Path(__file__).parent / "results" / "portable"
NETWORKS = {  # file or name, preprocessing, faces
    "y1": ("y1.onnx", None, "faces6k"),
    "mobileface2": ("mobileface2.onnx", None, "faces6k"),
    "foamliu_mobilefacenet": ("foamliu_mobilefacenet.onnx", "imagenet", "faces6k"),
    "edgeface_xs": ("edgeface_xs.onnx", None, "faces6k"),
    "dlib": ("dlib-resnet", None, "synthetic:3000"),
}
FORMS = {
    "full range": Scheme(full_range=True),
    "7 bits": Scheme(Bits(7, 8)),
    "pairs": Scheme(),
}
_EMULATED = 64


def row(name: str, shared: Path) -> dict[str, object]:
    """The three forms of one network."""
    file, preprocess, source = NETWORKS[name]
    weights = shared / "weights" / file
    model = load_model(str(weights) if weights.exists() else file, preprocess=preprocess)
    faces = load_source(
        source if ":" in source else str(shared / "data" / source),
        model.contract,
        resize=False,
        seed=0,
        limit=14_000,
        console=Console(quiet=True),
    )
    train, held = split(faces, 0.1, 0)
    batches = calibration_batches(model, faces, train)
    crops = faces.images[held]
    wanted = Embedder.open(model, backend="onnxruntime").embed(crops)
    losses, overflow = {}, 0.0
    for form, scheme in FORMS.items():
        student = make_start(model, batches, scheme, None, 0, Console(quiet=True)).student
        losses[form] = 1 - mean_cosine(Embedder.open(student).embed(crops), wanted)
        if form == "full range":
            pixels = torch.from_numpy(
                model.contract.pixels(crops[:: max(len(crops) // _EMULATED, 1)])
            )
            exact = emulate(student, pixels[:_EMULATED]).numpy()
            overflow = mean_cosine(exact, emulate(student, pixels[:_EMULATED], sums16=True).numpy())
        print(name, form, f"{losses[form]:.5f}", flush=True)
    return {
        "name": name,
        "date": date.today().isoformat(),
        "processor": environment()["processor"],
        "instruction_sets": environment()["instruction_sets"],
        "platform": platform.platform(),
        "held_out_crops": len(crops),
        "held_out": losses,
        "full_range_without_vnni": overflow,
    }


def table(rows: list[dict]) -> str:
    """Held-out losses of every form, and the product's share of full range's."""
    lines = [
        "| | full range | 7 bits | pairs | pairs / full range | full range without VNNI, cosine |",
        "|---|---|---|---|---|---|",
    ]
    for found in rows:
        cells = [f"{found['held_out'][form]:.5f}" for form in FORMS]
        share = found["held_out"]["pairs"] / found["held_out"]["full range"]
        lines.append(
            f"| {found['name']} | {' | '.join(cells)} | {share:.2f} | "
            f"{found['full_range_without_vnni']:.3f} |"
        )
    return "\n".join(lines) + "\n"


TRAINED = (  # name, rows in the portable form; those of full range are named after them
    ("y1", tuple(f"low_bits/y1_w8a8_seed_{seed}" for seed in range(3))),
    (
        "foamliu, ONNX",
        tuple(f"low_bits/foamliu_mobilefacenet_w8a8_seed_{seed}" for seed in range(3)),
    ),
    ("foamliu, the same network from `.pt`", ("networks/foamliu_mobilefacenet.pt_w8a8",)),
    ("mobileface2", ("pruning/mobileface2_0_w8a8",)),
    ("mobileface2, 25 % pruned", ("pruning/mobileface2_25_w8a8",)),
    ("EdgeFace", ("networks/edgeface_xs.onnx_w8a8",)),
    ("dlib", ("pruning/dlib_0_w8a8",)),
)
_BOUND = 1.1


def trained_table() -> str:
    """Held-out losses of trained students in both forms; what the portable one loses more, in points."""
    lines = [
        "| | seeds | full range | portable | ratio | accuracy | TAR@1e-3 | TAR@1e-4, all pairs | 1e-5 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, files in TRAINED:
        pairs = [
            [json.loads((ROWS.parent / f"{file}.json").read_text()) for file in both]
            for both in ((f.replace("w8a8", "w8a8_full_range"), f) for f in files)
        ]
        full, ours = (np.mean([pair[i]["held_out"][1] for pair in pairs]) for i in range(2))
        more = np.mean([np.subtract(losses(b), losses(a)) for a, b in pairs], axis=0)
        ratio = f"**{ours / full:.2f}**" if ours / full > _BOUND else f"{ours / full:.2f}"
        points = " | ".join(f"{value:+.2f}" for value in more)
        lines.append(f"| {name} | {len(files)} | {full:.5f} | {ours:.5f} | {ratio} | {points} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path)
    parser.add_argument(
        "--trained", action="store_true", help="only the table of rows that are there"
    )
    parser.add_argument("--only", action="append", choices=NETWORKS, help="network")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    if args.trained:
        print(trained_table())
        return
    if args.shared is None:
        parser.error("--shared is needed")
    keep_freed_memory()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    ROWS.mkdir(parents=True, exist_ok=True)
    for name in args.only or NETWORKS:
        found = row(name, args.shared)
        (ROWS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    rows = [json.loads(p.read_text()) for p in sorted(ROWS.glob("*.json"))]
    text = table(rows)
    ROWS.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
