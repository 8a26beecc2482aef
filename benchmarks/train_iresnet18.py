"""A trained IResNet-18 of our own, distilled from another network's embeddings on the small sets.

    efq data check ../shared/data/extra --against ../shared/data/lfw112 --teacher TEACHER -o shared.txt
    python benchmarks/train_iresnet18.py --teacher ../shared/weights/edgeface_xs.onnx \
        --faces ../shared/data/faces6k ../shared/data/extra --exclude shared.txt \
        --eval lfw=../shared/data/lfw112 --out runs/iresnet18

It exists because no trained IResNet is at hand to measure on; a few thousand images and a few hours
do not make a good one. Ends with `backbone.pth`, a state dict in arcface_torch's names (pixels RGB,
(x - 127.5) / 127.5). Stopped, it goes on when called again with the same arguments. Of --exclude only
the images of people who are in the evaluation set are left out: a wrong label harms no distillation.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch

from efquantface.assets import file_sha256
from efquantface.backbones.iresnet import IResNet
from efquantface.contract import FaceContract
from efquantface.data.faces import load_faces
from efquantface.data.listing import full_name
from efquantface.distill.bank import TeacherBank
from efquantface.distill.losses import cosine_loss
from efquantface.distill.optimizer import schedule
from efquantface.embedding.embedder import Embedder
from efquantface.rows import unit
from efquantface.runtime.environment import environment
from efquantface.runtime.memory import keep_freed_memory
from efquantface.verbs.evaluate import evaluate

_ALIKE = 0.5
_SHARED = "in the evaluation set"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--faces", type=Path, nargs="+", required=True)
    parser.add_argument("--exclude", type=Path, nargs="*", default=[])
    parser.add_argument("--eval", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    keep_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    teacher = Embedder.open(args.teacher, threads=args.threads)
    images = crops(args.faces, args.exclude, teacher.contract)
    key = file_sha256(args.teacher) + teacher.contract.to_json()
    bank = TeacherBank.build(teacher, images, key=key)
    rows = unit(bank.plain[:: max(len(images) // 500, 1)])
    alike = float((rows @ rows.T)[np.triu_indices(len(rows), 1)].mean())
    print(f"{teacher.contract.describe()}; mean cosine of different images {alike:.3f}", flush=True)
    if alike > _ALIKE:
        raise SystemExit("the teacher takes all faces for one: its preprocessing is wrong")
    contract = FaceContract(112, 112, teacher.contract.embedding_size)
    torch.manual_seed(0)
    network = IResNet(18, contract.embedding_size).to(memory_format=torch.channels_last)
    seconds = train(network, contract, images, bank, args)
    backbone = args.out / "backbone.pth"
    torch.save(network.state_dict(), backbone)
    (result,) = [
        r for r in evaluate(network.eval(), args.eval, contract=contract) if "pairs" in r.protocol
    ]
    row = {
        "images": len(images),
        "epochs": args.epochs,
        "minutes": round(seconds / 60, 1),
        "metrics": result.as_dict()["metrics"],
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
    }
    (args.out / "result.json").write_text(json.dumps(row, indent=2) + "\n")
    print(json.dumps(row["metrics"], indent=2))


def crops(
    faces: list[Path], exclude: list[Path], contract: FaceContract
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """All crops (N,H,W,3), without people who are in the evaluation set."""
    out = set()
    for path in exclude:
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        out |= {full_name(path.parent, p[0]) for p in lines if len(p) > 1 and _SHARED in p[1]}
    kept = []
    for root in faces:
        loaded = load_faces(root, contract)
        names = [full_name(root, name) for name in loaded.names]
        kept.append(loaded.images[[name not in out for name in names]])
        print(f"{root}: {len(kept[-1]):,} of {len(names):,} images", flush=True)
    return np.concatenate(kept)


def train(
    network: torch.nn.Module,
    contract: FaceContract,
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    bank: TeacherBank,
    args: argparse.Namespace,
) -> float:
    """Train in bfloat16 with mirroring; returns the seconds it took, all sittings together."""
    state_path = args.out / "state.pt"
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=0.05)
    each = len(images) // args.batch
    total, step, seconds = each * args.epochs, 0, 0.0
    if state_path.is_file():
        state = torch.load(state_path, weights_only=True)
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
    compiled = torch.compile(network, dynamic=False)
    network.train()
    began = saved = time.monotonic()
    mean = 1.0
    while step < total:
        rng = np.random.default_rng([0, step // each])
        order, flips = rng.permutation(len(images)), rng.random(len(images)) < 0.5
        at = (step % each) * args.batch
        index, flip = order[at : at + args.batch], flips[at : at + args.batch]
        batch = images[index].copy()
        batch[flip] = batch[flip][:, :, ::-1]
        target = np.where(flip[:, None], bank.mirrored[index], bank.plain[index])
        x = torch.from_numpy(contract.normalize(batch)).contiguous(
            memory_format=torch.channels_last
        )
        for group in optimizer.param_groups:
            group["lr"] = args.lr * schedule(step, total)
        with torch.autocast("cpu", torch.bfloat16):
            embedding = compiled(x)
        loss = cosine_loss(embedding.float(), torch.from_numpy(target))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        mean = 0.98 * mean + 0.02 * float(loss.detach())
        if not math.isfinite(mean):
            raise SystemExit(f"the loss is not finite at step {step}; try a smaller --lr")
        if step % 50 == 0:
            print(f"step {step} of {total}, loss {mean:.4f}", flush=True)
        if step == total or time.monotonic() - saved > 180:
            seconds += time.monotonic() - began
            state = {
                "model": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "seconds": seconds,
            }
            torch.save(state, state_path.with_suffix(".partial"))
            os.replace(state_path.with_suffix(".partial"), state_path)
            began = saved = time.monotonic()
    return seconds


if __name__ == "__main__":
    main()
