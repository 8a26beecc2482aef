"""Minutes of fine-tuning until 99 % of the TAR that it ends with.

    python benchmarks/time_to_tar.py --shared ../shared --teacher y1 --bits w6a6 --epochs 2 --threads 1

The student is looked at several times an epoch, on all pairs of LFW, its file in ONNX Runtime; looking
is not counted. The learning rate falls as in every run, so a shorter run would end better than this one
stands after the same minutes. QuantFace's runs see 5.8 million images, or 528,227 for 11 epochs.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path

from commands import command_line
from efquantface import Embedder
from efquantface.assets import file_sha256
from efquantface.distill.settings import TrainSettings
from efquantface.distill.trainer import fine_tune
from efquantface.embedding.cache import EmbeddingCache
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.run import evaluate_set
from efquantface.quantize.placement import refresh_biases
from efquantface.runtime.environment import environment
from training_options import add_training_arguments, prepare

_QUANTFACE = 5_800_000
_SHARE = 0.99


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training_arguments(parser)
    parser.add_argument("--looks", type=int, default=5, help="times an epoch")
    args = parser.parse_args()
    model, path, data, start = prepare(args)
    student, settings = start.student, TrainSettings(epochs=args.epochs)
    every = max(len(data.pixels) // settings.batch_size // args.looks, 1)
    weights = {0: copy.deepcopy(student.graph.state_dict())}
    seconds = {0: 0.0}
    began = time.monotonic()

    def keep(step: int, total: int, _: float) -> None:
        if step % every == 0 or step == total:
            seconds[step] = time.monotonic() - began
            weights[step] = copy.deepcopy(student.graph.state_dict())

    with tempfile.TemporaryDirectory() as folder:
        fine_tune(student, data, settings, Path(folder) / "state.pt", progress=keep)

    (people,) = load_eval(f"lfw={args.shared / 'data' / 'lfw112'}", model.contract)
    images = people.faces.images
    own = EmbeddingCache(Embedder.open(path, contract=model.contract), file_sha256(path)).embed(
        images
    )
    tars = {}
    env = environment()
    print(
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, torch {env['packages']['torch']}, "
        f"`{command_line()}`\n\n| images seen | minutes "
        "| TAR@1e-4, all pairs |\n|---|---|---|"
    )
    for step, state in weights.items():
        student.graph.load_state_dict(state)
        refresh_biases(student.graph)
        look = Embedder.open(student, backend="onnxruntime", threads=args.threads)
        every_pair = evaluate_set(people, own, look.embed(images))[1].as_dict()
        named = {m["name"]: m for m in every_pair["metrics"]}
        tars[step] = named["TAR@FAR=0.0001"]["student"]
        seen = step * settings.batch_size
        print(f"| {seen:,} | {seconds[step] / 60:.1f} | {100 * tars[step]:.2f} |", flush=True)
    wanted = _SHARE * tars[max(tars)]
    first = min(step for step in tars if all(tars[s] >= wanted for s in tars if s >= step))
    if not first:
        print(f"\n{_SHARE:.0%} of the TAR at the end is there before any training.")
        return
    seen = first * settings.batch_size
    print(
        f"\n{_SHARE:.0%} of the TAR at the end is there after {seconds[first] / 60:.1f} minutes and "
        f"{seen:,} images, {_QUANTFACE / seen:,.0f} times fewer than a QuantFace run sees."
    )


if __name__ == "__main__":
    main()
