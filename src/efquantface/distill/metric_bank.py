"""What the metric loss remembers: exact teacher thresholds, and recent student embeddings."""

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
_FEWEST = 10  # impostor pairs that an anchor's threshold has to stand on
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
    """The FPRs that so many impostor pairs support."""
    return [far for far in FARS if far * impostors >= _FEWEST]


def exact_thresholds(
    embeddings: npt.NDArray[np.float32], identities: npt.NDArray[np.int64], fars: list[float]
) -> Tensor:
    """(A,) thresholds over all pairs of a set, in blocks: 14,000 images take seconds."""
    result = score_all_pairs(embeddings, identities)
    one = np.ones(1, np.float32)  # the genuine scores play no part in a threshold
    points = [tar_at_far(one, result.top_impostors, far, result.impostors) for far in fars]
    return torch.tensor([p.threshold for p in points])


class MetricBank:
    """The stateful shell of the metric loss: a ring of recent embeddings of both networks.

    Batches are compared with themselves and with the ring. The student's thresholds are those of the
    ring's own impostor pairs, computed anew every few steps; the ring is filled before the first step,
    so they are unbiased from then on. With ``published`` both thresholds follow EKD instead: they begin
    at zero and move by a hundredth towards each batch's own.
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
            student, teacher: embeddings (M,D) of M training images by both networks, any length.
            identities: (M,) numbers; equal ones are genuine pairs.
            teacher_thresholds: (A,) at ``fars`` over the whole training set.
            refresh: steps between two computations of the student's thresholds.
            alike: cosine of two strangers; the rest of the cosines' range is what the temperature and
                the loss are a share of, as the distillation beside it is.
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
        """The metric loss of a batch (B,D), which then joins the ring."""
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
        """Go on from :meth:`state`."""
        for name in _STATE:
            value = state[name]
            if isinstance(value, Tensor):
                value = value.to(self.student.device)
            setattr(self, name, value)

    def _push(self, student: Tensor, teacher: Tensor, identities: Tensor) -> None:
        where = (self.at + torch.arange(len(student), device=student.device)) % len(self.student)
        # new tensors: the old ones are still needed by the batch's backward pass
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
        """EKD's running thresholds."""
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
    """A bank with the teacher's thresholds, and a ring of the student's embeddings of whole batches.

    Thresholds stand on all pairs, of at most 50,000 images.

    Args:
        embed: the student's embeddings (B,D) of training images by index; one size of batch only.
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
        f"thresholds at FPR {', '.join(f'{far:g}' for far in fars)}"
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
    """(A,) the (floor(far M) + 1)-th largest impostor score of each FPR."""
    counts = [int(far * len(impostor)) + 1 for far in fars]
    top = impostor.topk(min(max(counts), len(impostor))).values
    return torch.stack([top[min(c, len(top)) - 1] for c in counts])
