"""Forward and backward passes of a batch, in microbatches where memory asks for it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from efquantface.distill.layerwise import layer_error
from efquantface.distill.losses import LOSSES
from efquantface.distill.metric_bank import MetricBank
from efquantface.distill.ranks import Ranks
from efquantface.distill.settings import TrainSettings


class Microbatches:
    """Losses of a batch and their gradients; of several processes each has its share of the batch.

    Every process passes the same number of microbatches, whose sizes differ by one image at most.
    Losses are means over the whole batch, and :class:`DistributedDataParallel` takes the mean of the
    processes' gradients; so each process weighs its images with ``count / batch``.

    Attributes:
        size: images of a microbatch; a compiled model sees this size only.
        parts: microbatches of a process's share.
        metric: the metric loss beside the distillation, where one is wanted.
        layer_weight: of the layers' error, as it stands now.
    """

    def __init__(self, settings: TrainSettings, ranks: Ranks, size: int, parts: int) -> None:
        self.settings, self.ranks, self.size, self.parts = settings, ranks, size, parts
        self.loss = LOSSES[settings.loss]
        self.metric: MetricBank | None = None
        self.layer_weight = settings.layer_weight

    def distil(self, model: Any, pixels: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of one microbatch's embeddings, and while it lasts of the layers; the embeddings."""
        if not self.settings.layer_weight:
            embedding = model(pixels)
            return self.loss(embedding, teacher), embedding
        embedding, errors, energies = model(pixels)
        if not self.ranks.alone:  # a layer's error is a share of what all images have
            energies = self._mean_energy(energies, len(pixels)) * len(pixels)
        layers = layer_error(errors, energies)
        return self.loss(embedding, teacher) + self.layer_weight * layers, embedding

    def _mean_energy(self, energies: Tensor, images: int) -> Tensor:
        together = self.ranks.summed(torch.cat([energies, energies.new_tensor([float(images)])]))
        return together[:-1] / together[-1]

    def embed(self, model: Any, pixels: Tensor) -> Tensor:
        """Embeddings (B,D) without gradients, by a model that no other process waits for."""
        outs = (model(x) for x in torch.tensor_split(pixels, self.parts))
        first = bool(self.settings.layer_weight)
        return torch.cat([(out[0] if first else out).detach() for out in outs])

    def backward(
        self,
        model: Any,
        bare: Any,
        pixels: Tensor,
        teacher: Tensor,
        identities: Tensor | None,
        batch: int,
    ) -> float:
        """The loss of a batch; gradients are added up over microbatches and processes.

        Args:
            model: what passes gradients on to the other processes.
            bare: the same without them.
            pixels, teacher: (B,3,H,W) and (B,D), this process's share.
            batch: images of all processes.
            identities: (batch,); only a metric loss asks for them.
        """
        xs, ts = (torch.tensor_split(v, self.parts) for v in (pixels, teacher))
        value, slopes, first = 0.0, None, None
        if self.metric is not None and not (self.parts == 1 and self.ranks.alone):
            # pairs reach across microbatches: embed all, take the loss's slope, and hand it out
            if self.parts == 1:
                first = self.distil(model, xs[0], ts[0])
                own = first[1].detach()
            else:
                own = self.embed(bare, pixels)
            embedding = self.ranks.whole(own, batch).requires_grad_()
            pairs = self._pairs(embedding, self.ranks.whole(teacher, batch), identities)
            slope = torch.autograd.grad(pairs, embedding)[0][self.ranks.share] * self.ranks.count
            slopes = torch.tensor_split(slope, self.parts)
            value = float(pairs.detach())
        for index, (x, t) in enumerate(zip(xs, ts, strict=True)):
            waits = not self.ranks.alone and index + 1 < len(xs)
            fabric = self.ranks.fabric
            with fabric.no_backward_sync(model) if waits else nullcontext():
                loss, embedding = self.distil(model, x, t) if first is None else first
                loss = loss * (len(x) * self.ranks.count / batch)
                if slopes is None and self.metric is not None:
                    loss = loss + self._pairs(embedding, t, identities)
                value += float(loss.detach())
                if slopes is not None:
                    loss = loss + (embedding * slopes[index]).sum()
                fabric.backward(loss)
        return self.ranks.totals([value])[0] / self.ranks.count

    def _pairs(self, embedding: Tensor, teacher: Tensor, identities: Tensor | None) -> Tensor:
        """The weighted metric loss of a whole batch."""
        assert self.metric is not None
        assert identities is not None
        weight = self.settings.metric_weight if self.settings.metric == "ours" else 1.0
        return weight * self.metric.loss(embedding, teacher, identities.to(embedding.device))
