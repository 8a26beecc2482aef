"""Options of fine-tuning compared by the loss on identities held out of faces6k; LFW is not looked at.

    python benchmarks/training_options.py --shared ../shared --teacher mobileface2 --bits w4a4 \
        --option "" --option batch_size=32,lr=0.0015 --option layer_weight=0.5

An option is fields of TrainSettings; the empty one is the default. One start, the same for all. With
`--also extra` the faces of that set are trained on too.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from commands import command_line
from efquantface.console import Console
from efquantface.data.faces import load_faces, split
from efquantface.distill.bank import TeacherBank
from efquantface.distill.settings import TrainData, TrainSettings
from efquantface.distill.trainer import fine_tune
from efquantface.embedding.embedder import Embedder
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.pipeline.preflight import model_digest
from efquantface.pipeline.start import Start, calibration_index, make_start
from efquantface.recipe import Recipe
from efquantface.runtime.environment import environment
from efquantface.runtime.memory import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training_arguments(parser)
    parser.add_argument("--option", action="append", required=True)
    args = parser.parse_args()
    _, _, data, start = prepare(args)
    env = environment()
    print(
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, torch {env['packages']['torch']}, "
        f"`{command_line()}`\n\n| | before, after each epoch | seconds |\n|---|---|---|"
    )
    for option in args.option:
        fields = {k: yaml.safe_load(v) for k, v in (o.split("=") for o in option.split(",") if o)}
        settings = TrainSettings(**{"epochs": args.epochs, **fields})
        student = copy.deepcopy(start.student)
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state.pt"
            history = fine_tune(student, data, settings, state, teacher=start.teacher)
        losses = ", ".join(f"{loss:.4f}" for _, loss in history.held_out)
        print(f"| {option or 'default'} | {losses} | {history.seconds:.0f} |", flush=True)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """What is trained, how long and on how many threads."""
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--teacher", required=True, help="an ONNX file's name in shared/weights")
    parser.add_argument("--preprocess")
    parser.add_argument("--bits", default="w4a4")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--also", help="another folder of shared/data to train on")


def prepare(args: argparse.Namespace) -> tuple[FaceModel, Path, TrainData, Start]:
    """The teacher, its file, faces6k with the teacher's embeddings, and the student before training."""
    keep_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    path = args.shared / "weights" / f"{args.teacher}.onnx"
    model = load_model(path, preprocess=args.preprocess)
    faces = load_faces(args.shared / "data" / "faces6k", model.contract)
    train, held = split(faces, 0.1, 0)
    embedder = Embedder.open(model, backend="onnxruntime", threads=args.threads)
    chosen, images, identities = train, faces.images, faces.identities
    if args.also:
        also = load_faces(args.shared / "data" / args.also, model.contract)
        chosen = np.append(train, np.arange(len(faces), len(faces) + len(also)))
        images = np.concatenate([images, also.images])
        identities = np.append(identities, also.identities + faces.identities.max() + 1)
    bank = TeacherBank.build(embedder, images, key=model_digest(model))
    data = TrainData.of(images, model.contract, bank, chosen, held, identities)
    recipe = Recipe.create({"teacher": args.teacher, "faces": "faces6k", "bits": args.bits})
    crops = torch.from_numpy(model.contract.pixels(images[calibration_index(train)]))
    start = make_start(
        model,
        list(torch.split(crops, 32)),
        recipe.scheme,
        None,
        0,
        Console(quiet=True),
        rebuild=recipe.reconstructs,
    )
    return model, path, data, start


if __name__ == "__main__":
    main()
