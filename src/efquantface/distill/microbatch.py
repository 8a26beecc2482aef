"""Forward and backward passes of a batch, in microbatches if memory needs it."""

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
    """The losses of a batch and their gradients. With several processes, each has a share of the batch.

    All processes pass the same number of microbatches, whose sizes differ by one image at most. Losses
    are means over the whole batch. :class:`DistributedDataParallel` averages the gradients of the
    processes, so each process weighs its images with ``count / batch``.

    Attributes:
        size: images of a microbatch; a compiled model sees this size only.
        parts: microbatches of a process's share.
        metric: the metric loss; None without one.
        layer_weight: present weight of the layers' error.
    """

    def __init__(self, settings: TrainSettings, ranks: Ranks, size: int, parts: int) -> None:
        self.settings, self.ranks, self.size, self.parts = settings, ranks, size, parts
        self.loss = LOSSES[settings.loss]
        self.metric: MetricBank | None = None
        self.layer_weight = settings.layer_weight

    def distil(self, model: Any, pixels: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """The distillation loss of a microbatch, and its embeddings (B,D).

        The loss includes the layers' error if that is trained.

        Args:
            model: gives embeddings, or what :class:`~efquantface.distill.layerwise.LayerDistillation`
                gives.
            pixels: float (B,3,H,W).
            teacher: embeddings (B,D).
        """
        if not self.settings.layer_weight:
            embedding = model(pixels)
            return self.loss(embedding, teacher), embedding
        embedding, errors, energies = model(pixels)
        if not self.ranks.alone:  # a layer's error is relative to the energy of all images
            energies = self._mean_energy(energies, len(pixels)) * len(pixels)
        layers = layer_error(errors, energies)
        return self.loss(embedding, teacher) + self.layer_weight * layers, embedding

    def _mean_energy(self, energies: Tensor, images: int) -> Tensor:
        together = self.ranks.summed(torch.cat([energies, energies.new_tensor([float(images)])]))
        return together[:-1] / together[-1]

    def embed(self, model: Any, pixels: Tensor) -> Tensor:
        """Embeddings (B,D) without gradients; ``model`` does not synchronize processes."""
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
        """The loss of a batch. Gradients are summed over microbatches and averaged over processes.

        Args:
            model: synchronizes gradients with the other processes.
            bare: the same model without synchronization.
            pixels, teacher: float (B,3,H,W) and embeddings (B,D), this process's share.
            identities: (batch,); only a metric loss needs them.
            batch: images of all processes.
        """
        xs, ts = (torch.tensor_split(v, self.parts) for v in (pixels, teacher))
        value, slopes, first = 0.0, None, None
        if self.metric is not None and not (self.parts == 1 and self.ranks.alone):
            # pairs span microbatches: embed all images, then take the loss's gradient by embedding
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
