"""Forward and backward passes of a batch, in microbatches where memory asks for it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from efquantface.distill.losses import LOSSES
from efquantface.distill.metric_bank import MetricBank
from efquantface.distill.settings import TrainSettings


class Microbatches:
    """Losses of a batch and their gradients.

    Attributes:
        size: images of a microbatch; a compiled model sees this size only.
        metric: the metric loss beside the distillation, where one is wanted.
        layer_weight: of the layers' error, as it stands now.
    """

    def __init__(self, settings: TrainSettings, fabric: Fabric, size: int) -> None:
        self.settings, self.fabric, self.size = settings, fabric, size
        self.loss = LOSSES[settings.loss]
        self.metric: MetricBank | None = None
        self.layer_weight = settings.layer_weight

    def distil(self, model: Any, pixels: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of one microbatch's embeddings, and while it lasts of the layers; the embeddings."""
        if not self.settings.layer_weight:
            embedding = model(pixels)
            return self.loss(embedding, teacher), embedding
        embedding, layers = model(pixels)
        return self.loss(embedding, teacher) + self.layer_weight * layers, embedding

    def embed(self, model: Any, pixels: Tensor) -> Tensor:
        """Embeddings (B,D) without gradients; B is a multiple of ``size``."""
        outs = (model(x) for x in torch.split(pixels, self.size))
        first = bool(self.settings.layer_weight)
        return torch.cat([(out[0] if first else out).detach() for out in outs])

    def backward(
        self, model: Any, pixels: Tensor, teacher: Tensor, identities: Tensor | None
    ) -> float:
        """The loss of a batch (B,3,H,W); its gradients are added up over its microbatches.

        Only a metric loss asks for ``identities`` (B,).
        """
        xs, ts = torch.split(pixels, self.size), torch.split(teacher, self.size)
        value, slopes = 0.0, None
        if self.metric is not None and len(xs) > 1:
            # pairs reach across microbatches: embed all, take the loss's slope, and hand it out
            embedding = self.embed(model, pixels).requires_grad_()
            pairs = self._pairs(embedding, teacher, identities)
            slopes = torch.split(torch.autograd.grad(pairs, embedding)[0], self.size)
            value = float(pairs.detach())
        for index, (x, t) in enumerate(zip(xs, ts, strict=True)):
            loss, embedding = self.distil(model, x, t)
            loss = loss * (len(x) / len(pixels))
            if slopes is None and self.metric is not None:
                loss = loss + self._pairs(embedding, t, identities)
            value += float(loss.detach())
            if slopes is not None:
                loss = loss + (embedding * slopes[index]).sum()
            waits = self.fabric.world_size > 1 and index + 1 < len(xs)
            with self.fabric.no_backward_sync(model) if waits else nullcontext():
                self.fabric.backward(loss)
        return value

    def _pairs(self, embedding: Tensor, teacher: Tensor, identities: Tensor | None) -> Tensor:
        """The weighted metric loss of a whole batch."""
        assert self.metric is not None
        assert identities is not None
        weight = self.settings.metric_weight if self.settings.metric == "ours" else 1.0
        return weight * self.metric.loss(embedding, teacher, identities.to(embedding.device))
