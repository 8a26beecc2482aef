"""The peer that shares our goal: networks quantized and fine-tuned by QuantFace's rule.

Written from its description (arXiv 2206.10526), not from its code: weights of convolutions and linear
layers by minimum and maximum of every output channel; activations behind PReLU or ReLU only, by the
absolute minimum and maximum of the first 300 steps; straight-through gradients; squared error between
embeddings. Images, steps, batch, mirroring and schedule are ours; of three learning rates the one with
the least held-out error after one epoch. Its networks are float inside (input, pre-activations and
sums are not quantized), so its numbers are of the fake-quantized network. BatchNorms are folded.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efquantface.data.faces import load_faces, split
from efquantface.distill.bank import TeacherBank
from efquantface.distill.batches import Batches
from efquantface.distill.losses import cosine_loss, mse_loss
from efquantface.distill.optimizer import schedule
from efquantface.distill.settings import TrainData, TrainSettings
from efquantface.embedding.embedder import Embedder
from efquantface.graph import ops
from efquantface.graph.graph import insert_after, module_nodes
from efquantface.graph.model import FaceModel
from efquantface.pipeline.preflight import model_digest
from efquantface.quantize.scheme import Bits
from efquantface.recipe import Recipe

RATES = (1e-5, 1e-4, 1e-3)
_STEPS_OF_RANGES = 300
_CLIP = 5.0
Loss = Callable[[Tensor, Tensor], Tensor]


class MinMaxActivation(nn.Module):
    """Quantizer over all values of the first steps."""

    low: Tensor
    high: Tensor

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
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, layer.bias)
        assert not isinstance(layer.padding, str)
        ways = layer.stride, layer.padding, layer.dilation
        stride, padding, dilation = (list(way) for way in ways)
        return F.conv2d(x, weight, layer.bias, stride, padding, dilation, layer.groups)


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


def trained(model: FaceModel, recipe: Recipe, faces: Path) -> tuple[FaceModel, dict[str, Any]]:
    """The student, and what its row keeps of the training."""
    began = time.monotonic()
    loaded = load_faces(faces, model.contract)
    kept, held = split(loaded, recipe.hold_out, recipe.seed)
    float_form = Embedder.open(model, backend="onnxruntime", threads=recipe.threads)
    bank = TeacherBank.build(float_form, loaded.images, key=model_digest(model))
    data = TrainData.of(loaded.images, model.contract, bank, kept, held)
    errors = {rate: _train(model, recipe, data, rate, 1)[1] for rate in RATES}
    rate = min(errors, key=lambda tried: errors[tried])
    student, _, held_out = _train(model, recipe, data, rate, recipe.training.epochs)
    return student, {
        "held_out": held_out,
        "minutes": (time.monotonic() - began) / 60,
        "epochs": recipe.training.epochs,
        "batch": recipe.training.batch_size,
        "images": len(kept),
        "trained_on": recipe.device,
        "rate": rate,
    }


def _train(
    model: FaceModel, recipe: Recipe, data: TrainData, rate: float, epochs: int
) -> tuple[FaceModel, float, list[float]]:
    """The trained student, its held-out squared error, cosine loss before and after."""
    torch.manual_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    settings = TrainSettings(epochs=epochs, batch_size=recipe.training.batch_size, lr=rate)
    student = quantized(model, Bits.parse(recipe.bits))
    student.graph.train().to(recipe.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(student.graph.parameters(), lr=rate, weight_decay=0)
    batches = Batches(data, settings, recipe.seed)
    total = batches.an_epoch * epochs
    cosines: list[float] = []
    for step in range(total):
        index, flip = batches.at(step)
        pixels = data.pixels[index].copy()
        pixels[flip] = pixels[flip][..., ::-1]
        wanted = np.where(flip[:, None], data.mirrored[index], data.plain[index])
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, total)
        target = torch.from_numpy(wanted.astype(np.float32)).to(recipe.device)
        loss = mse_loss(student.graph(_input(pixels, recipe.device)), target)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.graph.parameters(), _CLIP)
        if step:
            optimizer.step()
        else:  # the first step sees ranges for the first time
            cosines.append(_held_out(student, data, cosine_loss, recipe.device))
        optimizer.zero_grad(set_to_none=True)
    cosines.append(_held_out(student, data, cosine_loss, recipe.device))
    error = _held_out(student, data, mse_loss, recipe.device)
    student.graph.eval().cpu()
    return student, error, cosines


def _held_out(student: FaceModel, data: TrainData, loss: Loss, device: str) -> float:
    student.graph.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(data.held_pixels), 64):
            target = torch.from_numpy(data.held_teacher[start : start + 64]).to(device)
            found = student.graph(_input(data.held_pixels[start : start + 64], device))
            total += float(loss(found, target)) * len(target)
    student.graph.train()
    return total / len(data.held_pixels)


def _input(pixels: Any, device: str) -> Tensor:
    x = torch.from_numpy(pixels).to(device).float()
    return x.contiguous(memory_format=torch.channels_last)
