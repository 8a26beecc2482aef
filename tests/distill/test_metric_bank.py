"""The metric loss and its memory against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from efquantface.distill.metric import ekd_loss, metric_loss, soft_rank
from efquantface.distill.metric_bank import MetricBank, anchors, exact_thresholds

torch.manual_seed(0)
T_S, T_T = torch.tensor([0.3, 0.5]), torch.tensor([0.25, 0.45])


def pairs(count: int = 300) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    teacher = torch.rand(count, dtype=torch.float64) * 1.2 - 0.3
    student = teacher + 0.1 * torch.randn(count, dtype=torch.float64)
    return student, teacher, torch.rand(count) < 0.2


def test_gradient_is_numerically_right() -> None:
    student, teacher, same = pairs(60)
    student.requires_grad_()
    for loss in (
        lambda s: metric_loss(s, teacher, same, T_S.double(), T_T.double()),
        lambda s: ekd_loss(s, teacher, same, T_S.double(), T_T.double()),
    ):
        assert torch.autograd.gradcheck(loss, (student,), eps=1e-7, atol=1e-5)


def test_losses_by_loops() -> None:
    student, teacher, same = pairs()

    def rank(s: float, thresholds: torch.Tensor, t: float) -> float:
        return float(np.mean([1 / (1 + np.exp(-(s - float(a)) / t)) for a in thresholds]))

    def mean(t: float, chosen: list[int], scale: int) -> float:
        values = [
            (scale * (rank(float(student[i]), T_S, t) - rank(float(teacher[i]), T_T, t))) ** 2
            for i in chosen
        ]
        return float(np.mean(values))

    positive = [i for i in range(300) if same[i]]
    hard = [i for i in range(300) if not same[i] and (student[i] > 0.15 or teacher[i] > 0.10)]
    ours = metric_loss(student, teacher, same, T_S, T_T)
    assert float(ours) == pytest.approx(mean(0.05, positive, 1) + mean(0.05, hard, 1), rel=1e-5)
    negatives = [i for i in range(300) if not same[i]]  # fewer than 2,000: all are the hardest
    published = ekd_loss(student, teacher, same, T_S, T_T)
    expected = 0.02 * mean(0.01, positive, 2) + 0.01 * mean(0.01, negatives, 2)
    assert float(published) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [metric_loss, ekd_loss])
def test_nothing_to_compare_is_zero_and_finite(loss: object) -> None:
    student = torch.zeros(5, requires_grad=True)
    for same in (torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)):
        value = loss(student * 1.0, torch.zeros(5), same, T_S, T_S)  # type: ignore[operator]
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(student.grad).all()


def test_equal_decisions_lose_nothing_and_a_shifted_scale_is_no_loss() -> None:
    """What counts is where a score lies among the thresholds, not the score."""
    _, teacher, same = pairs()
    moved = teacher + 0.05
    assert float(metric_loss(moved, teacher, same, T_T + 0.05, T_T)) == pytest.approx(0, abs=1e-9)
    assert float(metric_loss(moved, teacher, same, T_T, T_T)) > 1e-3
    assert float(soft_rank(torch.tensor(2.0), T_T, 0.05)) == pytest.approx(1)


def embeddings(
    count: int = 256, people: int = 32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    who = torch.arange(count) % people
    teacher = torch.randn(people, 16)[who] + 0.7 * torch.randn(count, 16)
    return teacher + 0.4 * torch.randn(count, 16), teacher, who


def brute_threshold(rows: torch.Tensor, who: torch.Tensor, far: float) -> float:
    unit = F.normalize(rows, dim=1)
    scores = [
        float(unit[i] @ unit[j])
        for i in range(len(rows))
        for j in range(i + 1, len(rows))
        if who[i] != who[j]
    ]
    return sorted(scores, reverse=True)[int(far * len(scores))]


def test_thresholds_are_exact_from_the_first_step() -> None:
    student, teacher, who = embeddings(120)
    fars = [1e-1, 1e-2]
    exact = exact_thresholds(teacher.numpy(), who.numpy(), [1e-2])
    assert float(exact[0]) == pytest.approx(brute_threshold(teacher, who, 1e-2), abs=1e-5)
    bank = MetricBank(student, teacher, who, torch.zeros(2), fars)
    for i, far in enumerate(fars):
        assert float(bank.student_thresholds[i]) == pytest.approx(
            brute_threshold(student, who, far), abs=1e-5
        )
    assert anchors(5_000) == [1e-2]
    assert anchors(2_000_000) == [1e-2, 1e-3, 1e-4, 1e-5]


def test_ring_follows_the_student_and_comes_back_after_a_break() -> None:
    student, teacher, who = embeddings()
    thresholds = exact_thresholds(teacher.numpy(), who.numpy(), [1e-2])
    bank = MetricBank(student, teacher, who, thresholds, [1e-2], refresh=2)
    before = float(bank.student_thresholds[0])
    for step in range(4):
        index = torch.arange(step * 64, step * 64 + 64)
        bank.loss(teacher[index], teacher[index], who[index])
    assert float(bank.student_thresholds[0]) != before
    assert float(bank.student_thresholds[0]) == pytest.approx(float(thresholds[0]), abs=1e-5)
    other = MetricBank(student, teacher, who, thresholds, [1e-2], refresh=2)
    other.restore(bank.state())
    a, b = (x.loss(student[:64], teacher[:64], who[:64]) for x in (bank, other))
    assert float(a) == float(b)


def test_training_by_the_loss_restores_decisions() -> None:
    _, teacher, who = embeddings()
    student = teacher @ (torch.eye(16) + 0.3 * torch.randn(16, 16))  # what a matrix can undo
    thresholds = exact_thresholds(teacher.numpy(), who.numpy(), [1e-2])
    bank = MetricBank(student, teacher, who, thresholds, [1e-2])
    weight = torch.eye(16).requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=3e-3)
    losses = []
    for step in range(200):
        index = torch.randperm(256, generator=torch.Generator().manual_seed(step))[:64]
        loss = bank.loss(student[index] @ weight, teacher[index], who[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-40:]) < 0.8 * np.mean(losses[:40])


def test_what_strangers_share_only_scales_the_loss() -> None:
    student, teacher, who = (x[:200] for x in embeddings())
    alike = 0.8
    both = []
    for shared in (0.0, alike):
        column = torch.full((200, 1), (shared / (1 - shared)) ** 0.5)
        s, t = (torch.cat([F.normalize(x, dim=1), column], 1) for x in (student, teacher))
        thresholds = exact_thresholds(t.numpy(), who.numpy(), [1e-2])
        bank = MetricBank(s, t, who, thresholds, [1e-2], alike=shared)
        both.append(float(bank.loss(s[:64], t[:64], who[:64])))
    assert both[1] == pytest.approx((1 - alike) * both[0], rel=1e-3)


def test_ekd_thresholds_begin_at_zero_and_crawl() -> None:
    student, teacher, who = embeddings()
    bank = MetricBank(student, teacher, who, torch.ones(1), [1e-2], published=True)
    assert float(bank.teacher_thresholds[0]) == 0
    bank.loss(student[:64], teacher[:64], who[:64])
    first = float(bank.teacher_thresholds[0])
    assert 0 < first < 0.02
    bank.loss(student[:2] * 1, teacher[:2], torch.zeros(2, dtype=torch.long))  # one identity
    assert float(bank.teacher_thresholds[0]) == first


def test_metric_in_a_run(tmp_path: Path, network: object, faces: object, contract: object) -> None:
    from efquantface import compress

    for metric in ("ours", "ekd"):
        done = compress(
            network, faces, tmp_path / metric, contract=contract, epochs=2, batch_size=16,
            metric=metric, benchmark=False, cache=False, quiet=True,
        )  # fmt: skip
        assert f"metric loss ({metric}): " in done.run.log.read_text()
        assert np.isfinite([loss for _, loss in done.results.history.steps]).all()
