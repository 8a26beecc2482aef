"""Which faces a pruned network learns from best, with as many steps for each.

    python benchmarks/more_faces.py --shared ../shared --threads 1

mobileface2 with half of its multiply-accumulates, float, trained on faces6k, on `extra` (few images of
many people), and on faces6k together with synthetic faces or `extra`. The loss is that on people of
faces6k that no row is trained on; first, how near people of `extra` come to them.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from commands import command_line
from efquantface.console import Console
from efquantface.data.faces import FaceSet, load_faces, split
from efquantface.data.sources import make_synthetic
from efquantface.distill.bank import TeacherBank
from efquantface.distill.settings import TrainData, TrainSettings
from efquantface.distill.trainer import fine_tune
from efquantface.embedding.embedder import Embedder
from efquantface.importers.load import load_model
from efquantface.pipeline.preflight import model_digest
from efquantface.pipeline.start import calibration_batches
from efquantface.prune.prune import prune
from efquantface.quantize.float_student import trainable
from efquantface.runtime.environment import environment
from efquantface.runtime.memory import keep_freed_memory

_SHARE = 0.5
_PASSES = 6  # over as many images as faces6k has; half of it over twice as many


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--teacher", default="mobileface2", help="an ONNX file in shared/weights")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    model = load_model(args.shared / "weights" / f"{args.teacher}.onnx")
    faces = load_faces(args.shared / "data" / "faces6k", model.contract)
    extra = load_faces(args.shared / "data" / "extra", model.contract)
    synthetic = make_synthetic(6000, model.contract, 0, Console(quiet=True))
    embedder = Embedder.open(model, backend="onnxruntime", threads=args.threads)
    train, held = split(faces, 0.1, 0)
    pruned = prune(model, calibration_batches(model, faces, train), _SHARE)
    kept = faces.subset(train)
    env = environment()
    print(
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, torch {env['packages']['torch']}, "
        f"{torch.get_num_threads()} threads, `{command_line()}`\n\n"
        f"{nearest(embedder, faces.subset(held), extra)}\n\n"
        "| trained on | people | images | passes | held-out loss before, after each pass | minutes |"
        "\n|---|---|---|---|---|---|",
        flush=True,
    )
    sample = np.sort(np.random.default_rng(0).permutation(len(extra))[: len(train)])
    for name, passes, sets in (
        ("faces6k", _PASSES, [kept]),
        ("`extra`, a sample", _PASSES, [extra.subset(sample)]),
        ("faces6k and synthetic", _PASSES // 2, [kept, synthetic]),
        ("faces6k and `extra`", _PASSES // 2, [kept, extra]),
    ):
        images = np.concatenate([s.images for s in (*sets, faces.subset(held))])
        seen = np.arange(len(images) - len(held))
        bank = TeacherBank.build(embedder, images, key=model_digest(model))
        unseen = np.arange(len(seen), len(images))
        # no metric loss asks for identities
        data = TrainData.of(images, model.contract, bank, seen, unseen)
        student = trainable(copy.deepcopy(pruned.model))
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainSettings(epochs=passes)
            history = fine_tune(student, data, settings, Path(folder) / "s.pt")
        losses = ", ".join(f"{loss:.3f}" for _, loss in history.held_out)
        print(
            f"| {name} | {sum(s.people for s in sets):,} | {len(seen):,} | {passes} | {losses} | "
            f"{history.seconds / 60:.1f} |",
            flush=True,
        )


def nearest(embedder: Embedder, held: FaceSet, others: FaceSet) -> str:
    """How alike the most similar people of two sets are, by their mean embeddings."""
    cosines = (_centres(embedder, held) @ _centres(embedder, others).T).max(axis=1)
    return (
        f"Nearest person of `extra` to each of the {held.people} held out: cosine {cosines.max():.2f} "
        f"at most, {np.median(cosines):.2f} in the middle."
    )


def _centres(embedder: Embedder, faces: FaceSet) -> np.ndarray:
    found = embedder.embed(faces.images)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    centres = np.stack(
        [found[faces.identities == i].mean(axis=0) for i in np.unique(faces.identities)]
    )
    return centres / np.linalg.norm(centres, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
