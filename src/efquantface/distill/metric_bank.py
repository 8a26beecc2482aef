"""The state of the metric loss: exact teacher thresholds, and recent embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from efquantface.data.strangers import strangers
from efquantface.distill.batches import Batches
from efquantface.distill.metric import TEMPERATURE, ekd_loss, metric_loss
from efquantface.distill.settings import TrainData
from efquantface.evaluation.allpairs import score_all_pairs
from efquantface.evaluation.metrics import tar_at_far

FARS = (1e-2, 1e-3, 1e-4, 1e-5)
_FEWEST = 10  # impostor pairs at or above an anchor's threshold, at least
_EKD_MOMENTUM = 0.01
_RING = 2048  # recent embeddings that a batch is compared with
_EXACT = 50_000  # images whose pairs give the teacher's thresholds
_STATE = (
    "student",
    "teacher",
    "identities",
    "student_thresholds",
    "teacher_thresholds",
    "at",
    "steps",
)


def anchors(impostors: int) -> list[float]:
    """The FARs that this number of impostor pairs supports, largest first."""
    return [far for far in FARS if far * impostors >= _FEWEST]


def exact_thresholds(
    embeddings: npt.NDArray[np.float32], identities: npt.NDArray[np.int64], fars: list[float]
) -> Tensor:
    """Thresholds (A,) at ``fars`` over all pairs of a set. 14,000 images take seconds.

    Args:
        embeddings: (N,D).
        identities: (N,).
        fars: A rates that the pairs support.
    """
    result = score_all_pairs(embeddings, identities)
    one = np.ones(1, np.float32)  # thresholds do not depend on genuine scores
    points = [tar_at_far(one, result.top_impostors, far, result.impostors) for far in fars]
    return torch.tensor([p.threshold for p in points])


class MetricBank:
    """The metric loss with its state: a ring of recent embeddings of both networks.

    Pairs are within a batch, and between batch and ring. The student's thresholds are those of the
    ring's impostor pairs, computed again every few steps. The ring is filled before the first step, so
    the thresholds are unbiased from the start. With ``published`` the thresholds follow EKD: they start
    at zero, and move by a hundredth of the way to each batch's thresholds.
    """

    def __init__(
        self,
        student: Tensor,
        teacher: Tensor,
        identities: Tensor,
        teacher_thresholds: Tensor,
        fars: list[float],
        *,
        published: bool = False,
        refresh: int = 10,
        alike: float = 0.0,
    ) -> None:
        """Fill the ring.

        Args:
            student, teacher: embeddings (M,D) of M training images by both networks, of any length.
            identities: (M,) numbers; images with equal numbers are genuine pairs.
            teacher_thresholds: (A,) at ``fars`` over the whole training set.
            fars: the A anchors.
            published: EKD as published.
            refresh: steps between two computations of the student's thresholds.
            alike: mean cosine of strangers. Temperature and loss are scaled by 1 - alike, as the
                distillation loss is.
        """
        self.student = F.normalize(student.detach(), dim=1)
        self.teacher = F.normalize(teacher.detach(), dim=1)
        self.identities = identities.clone()
        pairs = len(student) * (len(student) - 1) // 2
        kept = [i for i, far in enumerate(fars) if far * pairs >= _FEWEST] or [0]
        self.fars = [fars[i] for i in kept]
        self.teacher_thresholds = teacher_thresholds[kept].to(student.device)
        self.published, self.refresh, self.range = published, refresh, 1 - alike
        self.at = self.steps = 0
        if published:
            self.student_thresholds = torch.zeros_like(self.teacher_thresholds)
            self.teacher_thresholds = torch.zeros_like(self.teacher_thresholds)
        else:
            self.student_thresholds = self._own_thresholds()

    def loss(self, student: Tensor, teacher: Tensor, identities: Tensor) -> Tensor:
        """The metric loss of a batch, which then enters the ring.

        Args:
            student, teacher: embeddings (B,D).
            identities: (B,).
        """
        s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
        upper = torch.triu(torch.ones(len(s), len(s), dtype=torch.bool, device=s.device), 1)
        scores = [(s @ s.T)[upper]]
        targets = [(t @ t.T)[upper]]
        same = [(identities[:, None] == identities[None])[upper]]
        if self.published:
            self._move_thresholds(scores[0].detach(), targets[0], same[0])
            total = ekd_loss(
                scores[0], targets[0], same[0], self.student_thresholds, self.teacher_thresholds
            )
        else:
            scores.append((s @ self.student.T).reshape(-1))
            targets.append((t @ self.teacher.T).reshape(-1))
            same.append((identities[:, None] == self.identities[None]).reshape(-1))
            total = self.range * metric_loss(
                torch.cat(scores),
                torch.cat(targets),
                torch.cat(same),
                self.student_thresholds,
                self.teacher_thresholds,
                TEMPERATURE * self.range,
            )
        self._push(s.detach(), t, identities)
        return total

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state`."""
        for name in _STATE:
            value = state[name]
            if isinstance(value, Tensor):
                value = value.to(self.student.device)
            setattr(self, name, value)

    def _push(self, student: Tensor, teacher: Tensor, identities: Tensor) -> None:
        where = (self.at + torch.arange(len(student), device=student.device)) % len(self.student)
        # new tensors, because the batch's backward pass still needs the old ones
        self.student = self.student.index_copy(0, where, student)
        self.teacher = self.teacher.index_copy(0, where, teacher)
        self.identities = self.identities.index_copy(0, where, identities)
        self.at = int(where[-1]) + 1
        self.steps += 1
        if not self.published and self.steps % self.refresh == 0:
            self.student_thresholds = self._own_thresholds()

    def _own_thresholds(self) -> Tensor:
        """Thresholds of the ring's impostor pairs."""
        different = self.identities[:, None] != self.identities[None]
        different &= torch.triu(torch.ones_like(different), 1)
        return _thresholds((self.student @ self.student.T)[different], self.fars)

    def _move_thresholds(self, student: Tensor, teacher: Tensor, same: Tensor) -> None:
        """Update EKD's running thresholds."""
        if bool(same.all()):
            return
        for own, scores in ((self.student_thresholds, student), (self.teacher_thresholds, teacher)):
            own.lerp_(_thresholds(scores[~same], self.fars), _EKD_MOMENTUM)


def fill_bank(
    embed: Callable[[npt.NDArray[np.int64]], Tensor],
    data: TrainData,
    batches: Batches,
    metric: str,
    say: Callable[[str], None],
) -> MetricBank:
    """A bank with the teacher's thresholds and a ring of embeddings of whole batches.

    Thresholds are those of all pairs of at most 50,000 images.

    Args:
        embed: gives the student's embeddings (B,D) of training images by index (B,). It is called with
            whole batches only.
        data: the training images.
        batches: their order and identities.
        metric: ``ours`` or ``ekd``.
        say: called with a line for the log.

    Raises:
        TrainingError: there are too many images without identities.
    """
    identities = batches.identities()
    seen = np.arange(0, len(identities), -(-len(identities) // _EXACT))
    images = len(seen)
    fars = anchors(images * (images - 1) // 2) or [FARS[0]]
    thresholds = exact_thresholds(data.plain[seen], identities[seen], fars)
    order, size = batches.order(0)[0], batches.size
    parts = [order[s : s + size] for s in range(0, min(_RING, len(order)) - size + 1, size)]
    student = torch.cat([embed(index) for index in parts])
    index = np.concatenate(parts)
    say(
        f"metric loss ({metric}): {len(np.unique(identities)):,} identities, "
        f"thresholds at FAR {', '.join(f'{far:g}' for far in fars)}"
    )
    return MetricBank(
        student,
        torch.from_numpy(data.plain[index]).to(student.device),
        torch.from_numpy(identities[index]).to(student.device),
        thresholds,
        fars,
        published=metric == "ekd",
        alike=strangers(data.plain),
    )


def _thresholds(impostor: Tensor, fars: list[float]) -> Tensor:
    """Thresholds (A,): for each FAR, the (floor(FAR M) + 1)-th largest of M impostor scores."""
    counts = [int(far * len(impostor)) + 1 for far in fars]
    top = impostor.topk(min(max(counts), len(impostor))).values
    return torch.stack([top[min(c, len(top)) - 1] for c in counts])
