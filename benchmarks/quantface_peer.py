"""The peer that shares our goal: networks quantized and fine-tuned by QuantFace's rule.

    python benchmarks/quantface_peer.py --shared ../shared --out runs/peer
    python benchmarks/quantface_peer.py --shared ../shared --out runs/peer --only "y1/w6a6"

Written from its description (arXiv 2206.10526), not from its code: weights of convolutions and linear
layers by minimum and maximum of every output channel; activations behind PReLU or ReLU only, by the
absolute minimum and maximum of the first 300 steps; straight-through gradients; squared error between
embeddings. Same images, steps, batch, mirroring and schedule as ours; of three learning rates the one
with the least held-out error after one epoch, chosen with the first seed. Its networks are float
inside (input, pre-activations and sums are not quantized), so the numbers are of the fake-quantized
network in PyTorch. BatchNorms are folded, as in the teachers' files.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efquantface.assets import file_sha256
from efquantface.data.faces import load_faces, split
from efquantface.distill.bank import TeacherBank
from efquantface.distill.batches import Batches
from efquantface.distill.losses import cosine_loss, mse_loss
from efquantface.distill.optimizer import schedule
from efquantface.distill.settings import TrainData, TrainSettings
from efquantface.embedding.cache import EmbeddingCache
from efquantface.embedding.embedder import Embedder
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.run import evaluate_set
from efquantface.graph import ops
from efquantface.graph.graph import insert_after, module_nodes
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.pipeline.preflight import model_digest
from efquantface.quantize.scheme import Bits
from efquantface.runtime.environment import environment
from low_bits import (
    SHORTER,
    TEACHERS,
    add_arguments,
    begin,
    epochs,
    is_wanted,
    keep,
    made,
    read_rows,
    row_file,
    table,
)

ROWS = Path(__file__).parent / "results" / "quantface"
BITS = ("w8a8", "w6a6", "w4a4")
RATES = (1e-5, 1e-4, 1e-3)
_STEPS_OF_RANGES = 300


class MinMaxActivation(nn.Module):
    """Quantizer over all values of the first steps."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.highest, self.seen = 2**bits - 1, 0
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.seen < _STEPS_OF_RANGES:
            self.seen += 1
            self.low.copy_(torch.minimum(self.low, x.detach().amin()))
            self.high.copy_(torch.maximum(self.high, x.detach().amax()))
        step = float((self.high - self.low).clamp(min=1e-12) / self.highest)
        zero = min(max(round(-float(self.low) / step), 0), self.highest)
        return torch.fake_quantize_per_tensor_affine(x, step, zero, 0, self.highest)


class MinMaxWeight(nn.Module):
    """A convolution or linear layer whose weight is quantized by each output channel's extremes."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, bits: int) -> None:
        super().__init__()
        self.layer, self.highest = layer, 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        flat = self.layer.weight.detach().flatten(1)
        low, high = flat.amin(dim=1).clamp(max=0), flat.amax(dim=1).clamp(min=0)
        step = ((high - low) / self.highest).clamp(min=1e-12)
        zero = torch.round(-low / step).clamp(0, self.highest)
        weight = torch.fake_quantize_per_channel_affine(
            self.layer.weight, step, zero, 0, 0, self.highest
        )
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, self.layer.bias)
        conv = self.layer
        return F.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def quantized(model: FaceModel, bits: Bits) -> FaceModel:
    """A copy with QuantFace's quantizers."""
    student = copy.deepcopy(model)
    graph = student.graph
    for node, module in module_nodes(graph):
        if isinstance(module, nn.Conv2d | nn.Linear):
            graph.set_submodule(str(node.target), MinMaxWeight(module, bits.weight))
        elif isinstance(module, ops.PReLU | ops.Clamp):
            insert_after(graph, node, f"{node.target}_act", MinMaxActivation(bits.activation))
    graph.recompile()
    return student


def held_loss(student: FaceModel, data: TrainData, loss, device: str) -> float:
    student.graph.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(data.held_pixels), 64):
            target = torch.from_numpy(data.held_teacher[start : start + 64]).to(device)
            found = student.graph(_input(data.held_pixels[start : start + 64], device))
            total += float(loss(found, target)) * len(target)
    student.graph.train()
    return total / len(data.held_pixels)


def _input(pixels: np.ndarray, device: str) -> Tensor:
    x = torch.from_numpy(pixels).to(device).float()
    return x.contiguous(memory_format=torch.channels_last)


def train(
    model: FaceModel, bits: Bits, data: TrainData, settings: TrainSettings, seed: int, device: str
) -> tuple[FaceModel, float, list[float]]:
    """The trained student, its held-out squared error, cosine loss before and after."""
    torch.manual_seed(seed)
    student = quantized(model, bits)
    student.graph.train().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(student.graph.parameters(), lr=settings.lr, weight_decay=0)
    batches = Batches(data, settings, seed)
    total = batches.an_epoch * settings.epochs
    cosines: list[float] = []
    for step in range(total):
        index, flip = batches.at(step)
        pixels = data.pixels[index].copy()
        pixels[flip] = pixels[flip][..., ::-1]
        wanted = np.where(flip[:, None], data.mirrored[index], data.plain[index])
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * schedule(step, total)
        target = torch.from_numpy(wanted.astype(np.float32)).to(device)
        loss = mse_loss(student.graph(_input(pixels, device)), target)
        loss.backward()
        nn.utils.clip_grad_norm_(student.graph.parameters(), 5.0)
        if step:
            optimizer.step()
        else:  # the first step sees ranges for the first time
            cosines.append(held_loss(student, data, cosine_loss, device))
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0:
            print(f"  step {step} of {total}, loss {loss.item():.5f}", flush=True)
    cosines.append(held_loss(student, data, cosine_loss, device))
    error = held_loss(student, data, mse_loss, device)
    student.graph.eval().cpu()
    return student, error, cosines


def fine_tuned(name: str, model: FaceModel, args: argparse.Namespace) -> tuple[FaceModel, dict]:
    """The row's student, and what is known of it before it is evaluated."""
    teacher, _, what = name.partition("/")
    bits_name, _, seed = what.partition(" seed ")
    bits = Bits.parse(bits_name)
    faces = load_faces(args.shared / "data" / "faces6k", model.contract)
    kept, held = split(faces, 0.1, int(seed))
    float_form = Embedder.open(model, backend="onnxruntime", threads=args.threads)
    bank = TeacherBank.build(float_form, faces.images, key=model_digest(model))
    data = TrainData.of(faces.images, model.contract, bank, kept, held)
    settings = TrainSettings(epochs=1)
    where = int(seed), args.device
    began = time.monotonic()
    first = row_file(ROWS, f"{teacher}/{bits_name} seed 0")
    if first.is_file():
        rate, errors = (json.loads(first.read_text())[key] for key in ("rate", "rates"))
    else:
        errors = {}
        for rate in RATES:
            errors[rate] = train(
                model, bits, data, settings.model_copy(update={"lr": rate}), *where
            )[1]
            print(f"{name}: rate {rate:g}, held-out squared error {errors[rate]:.5f}", flush=True)
        rate = min(errors, key=errors.get)
    passes = SHORTER.get(f"{teacher}/{bits_name}", epochs(teacher, bits_name))
    settings = settings.model_copy(update={"lr": rate, "epochs": passes})
    student, _, cosines = train(model, bits, data, settings, *where)
    cuda = args.device != "cpu"
    return student, {
        "name": name,
        "bytes": 0,
        "convolutions": None,
        "float": {},
        "held_out": cosines,
        "batch": settings.batch_size,
        "epochs": settings.epochs,
        "minutes": (time.monotonic() - began) / 60,
        "trained_on": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": args.threads,
        "rate": rate,
        "rates": errors,
    }


def evaluate(student: FaceModel, row: dict, path: Path, args: argparse.Namespace) -> None:
    """Keep the row with its numbers on LFW."""
    contract = student.contract
    (people,) = load_eval(f"lfw={args.shared / 'data' / 'lfw112'}", contract)
    images = people.faces.images
    own = Embedder.open(path, contract=contract, threads=args.threads)
    rows = [
        EmbeddingCache(own, file_sha256(path)).embed(images),
        Embedder.open(student).embed(images),
    ]
    protocols = [p.as_dict() for p in evaluate_set(people, *rows)]
    keep(
        ROWS,
        {**row, "protocols": protocols, "packages": environment()["packages"], "made": made()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    args = begin(parser)
    if args.threads:
        torch.set_num_threads(args.threads)
    for teacher in TEACHERS:
        for bits in BITS:
            for seed in range(args.seeds):
                name = f"{teacher}/{bits} seed {seed}"
                if is_wanted(name, args) and not row_file(ROWS, name).is_file():
                    path = args.shared / "weights" / f"{teacher}.onnx"
                    model = load_model(path, preprocess=TEACHERS[teacher])
                    evaluate(*fine_tuned(name, model, args), path, args)
    print(table(read_rows(ROWS)))


if __name__ == "__main__":
    main()
