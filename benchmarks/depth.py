"""What residual blocks cost and bring: the W8A8 file's speed without them, and what training gives back.

    python benchmarks/depth.py --shared ../shared --network mobileface2 --blocks 4
    python benchmarks/depth.py --shared ../shared --network iresnet50 --random --blocks 3
    python benchmarks/depth.py --shared ../shared --network mobileface2 --remove net_Add,net_Add_1 \\
        --epochs 4 --judge JUDGE

Blocks that lose least for each ms go one after the other, what is left is fitted in closed form,
nothing is trained. Speed is that of the W8A8 file in ONNX Runtime, batch 1, one thread, in turns with
that of the whole network. 1 - cosine is that of people of faces6k who are held out. With --remove and
--share the network without these blocks, and without that share of the multiply-accumulates, is
quantized, and with --epochs trained; TAR is that of all pairs of lfw112 and of JUDGE, a folder of
folders of crops. --random: no weights, speed only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from efquantface.backbones.registry import BACKBONES
from efquantface.console import Console
from efquantface.data.faces import FaceSet, load_faces, split
from efquantface.distill.bank import TeacherBank
from efquantface.distill.settings import TrainData, TrainSettings
from efquantface.distill.trainer import fine_tune
from efquantface.embedding.embedder import Embedder
from efquantface.evaluation.allpairs import score_all_pairs
from efquantface.evaluation.metrics import tar_at_far
from efquantface.export.onnx_writer import write_onnx
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.pipeline.clock import Clock
from efquantface.pipeline.preflight import model_digest
from efquantface.pipeline.start import calibration_batches, make_start
from efquantface.prune.prune import prune
from efquantface.prune.shorter import block_losses, blocks_in, loss, shorten
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.environment import environment
from efquantface.runtime.memory import keep_freed_memory
from runner.command import command_line

_HELD = 192
_FARS = (1e-3, 1e-4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--network", required=True, help="of shared/weights, or a default's name")
    parser.add_argument("--random", action="store_true", help="a backbone without weights")
    parser.add_argument("--faces", type=Path, help="in the place of faces6k")
    parser.add_argument("--blocks", type=int, default=3, help="to remove, one after the other")
    parser.add_argument("--remove", default="", help="blocks by name, comma between them")
    parser.add_argument("--share", type=float, default=0.0, help="of multiply-accumulates")
    parser.add_argument("--round-to", type=int, default=16, help="channels are a multiple of it")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/depth"))
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    env = environment()
    print(f"{env['processor']} ({', '.join(env['instruction_sets'])}), `{command_line()}`\n")
    if args.random:
        speed_alone(args.network, args.blocks)
        return
    file = args.shared / "weights" / f"{args.network}.onnx"
    model = load_model(file if file.is_file() else args.network)
    faces = load_faces(args.faces or args.shared / "data" / "faces6k", model.contract)
    if args.epochs or args.share or args.remove:
        trained(model, faces, args)
    else:
        untrained(model, faces, args.blocks)


def speed_alone(name: str, most: int) -> None:
    """Speed without the last blocks of each kind of map, whose weights are random."""
    entry = BACKBONES[name]
    torch.manual_seed(0)
    model = load_model(entry.build().eval(), contract=entry.contract)
    clock, blocks = Clock(Scheme()), blocks_in(model)
    before = clock(model)
    print(
        f"{len(blocks)} blocks, {before:.2f} ms\n\n| blocks removed | MACs | speed |\n|---|---|---|"
    )
    for count in range(1, most + 1):
        chosen = [blocks[i * len(blocks) // count] for i in range(count)]  # spread evenly
        shorter = shorten(model, chosen, []).model
        print(
            f"| {count} | {_macs(shorter, model):.0%} | {before / clock(shorter):.2f}x |",
            flush=True,
        )


def untrained(model: FaceModel, faces: FaceSet, most: int) -> None:
    """Each block alone, and the best ones together."""
    batches, held = _crops(model, faces)
    clock, blocks = Clock(Scheme()), blocks_in(model)
    before, wanted = clock(model), model.embed_pixels(held)
    losses = block_losses(model, blocks, batches)
    print(
        f"{before:.2f} ms\n\n| without | MACs | speed | 1 - cosine, held out |\n|---|---|---|---|"
    )
    saved = {b.name: before - clock(shorten(model, [b], []).model) for b in blocks}
    for block in blocks:
        shorter = shorten(model, [block], []).model
        speed = before / (before - saved[block.name])
        share = _macs(shorter, model)
        print(
            f"| {block.name} | {share:.0%} | {speed:.2f}x | {losses[block.name]:.4f} |", flush=True
        )
    order = sorted(blocks, key=lambda b: losses[b.name] / max(saved[b.name], 1e-6))
    for count in range(2, most + 1):
        shorter = shorten(model, order[:count], batches).model
        far = loss(shorter.embed_pixels(held), wanted)
        names = ", ".join(b.name for b in order[:count])
        speed = before / clock(shorter)
        print(f"| {names} | {_macs(shorter, model):.0%} | {speed:.2f}x | {far:.4f} |", flush=True)


def trained(model: FaceModel, faces: FaceSet, args: argparse.Namespace) -> None:
    """Quantized, trained and evaluated as exported, beside the teacher."""
    batches, held = _crops(model, faces)
    names = [name for name in args.remove.split(",") if name]
    chosen = [block for block in blocks_in(model) if block.name in names]
    shorter = shorten(model, chosen, batches) if chosen else None
    small = model if shorter is None else shorter.model
    if args.share:
        small = prune(model, batches, args.share, shorter=shorter, round_to=args.round_to).model
    clock = Clock(Scheme())
    speed = clock(model) / clock(small)
    start = make_start(small, batches, Scheme(), None, 0, Console(quiet=True))
    far = loss(start.student.embed_pixels(held), model.embed_pixels(held))
    print(
        f"{speed:.2f}x of W8A8, {_macs(small, model):.0%} of MACs, untrained {far:.4f}", flush=True
    )
    if not args.epochs:
        return
    teacher = Embedder.open(model, backend="onnxruntime", threads=1)
    train, kept = split(faces, 0.1, 0)
    bank = TeacherBank.build(teacher, faces.images, key=model_digest(model))
    data = TrainData.of(faces.images, model.contract, bank, train, kept, faces.identities)
    args.out.mkdir(parents=True, exist_ok=True)
    tag = f"{args.network}-{'+'.join(names) or 'channels'}-{args.share:g}-{args.round_to}"
    state = args.out / f"{tag}.pt"
    settings = TrainSettings(epochs=args.epochs)
    history = fine_tune(start.student, data, settings, state, teacher=start.teacher, say=print)
    state.unlink(missing_ok=True)
    file = args.out / f"{tag}.onnx"
    write_onnx(start.student, file)
    found = ", ".join(f"{value:.4f}" for _, value in history.held_out)
    print(f"held-out losses {found}; {history.seconds / 60:.0f} minutes", flush=True)
    student = Embedder.open(file, threads=1)
    for folder in (args.shared / "data" / "lfw112", args.judge):
        if folder is not None:
            print(
                f"{folder.name}: "
                + _tars(teacher, student, load_faces(folder, model.contract, follow_links=True))
            )


def _tars(teacher: Embedder, student: Embedder, faces: FaceSet) -> str:
    """TAR of all pairs and what is lost, in points."""
    pairs = [score_all_pairs(e.embed(faces.images), faces.identities) for e in (teacher, student)]
    said = []
    for far in _FARS:
        before, after = (
            100 * tar_at_far(p.genuine, p.top_impostors, far, p.impostors).tar for p in pairs
        )
        said.append(f"TAR@{far:g} {after:.2f} ({before - after:+.2f})")
    return ", ".join(said)


def _crops(model: FaceModel, faces: FaceSet) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Calibration batches, and pixels of people held out."""
    train, kept = split(faces, 0.1, 0)
    held = model.contract.pixels(faces.images[np.sort(kept)[:_HELD]])
    return calibration_batches(model, faces, train), torch.from_numpy(held)


def _macs(small: FaceModel, whole: FaceModel) -> float:
    size = (whole.contract.height, whole.contract.width)
    return macs(small.graph, *size) / macs(whole.graph, *size)


if __name__ == "__main__":
    main()
