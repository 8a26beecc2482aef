"""Losses, the teacher bank, and a trainer that stops at what is not finite."""

from __future__ import annotations

import copy
import gc
import stat
import weakref
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.data.strangers import strangers
from efquantface.distill.bank import TeacherBank
from efquantface.distill.layerwise import LayerDistillation, layer_error
from efquantface.distill.losses import cosine_loss, mse_loss
from efquantface.distill.memory import microbatch_size, saved_bytes
from efquantface.distill.optimizer import parameter_groups, rate_for
from efquantface.distill.settings import TrainData, TrainSettings
from efquantface.distill.trainer import fine_tune
from efquantface.embedding.embedder import Embedder
from efquantface.errors import RunError, TrainingError
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.float_student import trainable
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import enable, set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.recipe import Recipe
from efquantface.runtime.memory import freed_memory, keep_freed_memory


def test_losses_against_numpy() -> None:
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    cosine = (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)
    a, b = torch.from_numpy(s).requires_grad_(), torch.from_numpy(t)
    assert cosine_loss(a, b).item() == pytest.approx((1 - cosine).mean())
    assert mse_loss(a, b).item() == pytest.approx(((s - t) ** 2).mean())
    assert torch.autograd.gradcheck(lambda x: cosine_loss(x, b), a)
    assert cosine_loss(3 * b, b).item() == pytest.approx(0, abs=1e-12)


@pytest.fixture
def student(network: nn.Module, contract: FaceContract) -> FaceModel:
    made = quantize(load_model(network, contract=contract), Scheme.parse("w3a3"))
    pixels = torch.from_numpy(contract.pixels(make_faces().images))
    set_ranges(made.graph, [pixels])
    return made


@pytest.fixture
def data(network: nn.Module, contract: FaceContract) -> TrainData:
    teacher = Embedder.open(network, contract=contract)
    train, held = make_faces(seed=1).images, make_faces(identities=4, seed=2).images
    return TrainData(
        contract.pixels(train),
        teacher.embed(train),
        teacher.embed(train[:, :, ::-1]),
        contract.pixels(held),
        teacher.embed(held),
    )


def test_training_brings_the_student_closer(
    tmp_path: Path, student: FaceModel, data: TrainData
) -> None:
    settings = TrainSettings(epochs=6, batch_size=8)
    history = fine_tune(student, data, settings, tmp_path / "s.pt")
    losses = [loss for _, loss in history.held_out]
    assert min(losses) < 0.9 * losses[0]
    assert dict(history.held_out)[history.best_step] == min(losses)
    assert len(losses) == 7


def test_layers_are_compared_with_the_teachers(
    network: nn.Module, contract: FaceContract, student: FaceModel, data: TrainData, tmp_path: Path
) -> None:
    teacher = load_model(network, contract=contract)
    module = LayerDistillation(student.graph, teacher.graph)
    pixels = torch.from_numpy(data.pixels).float()
    embedding, errors, energies = module(pixels)
    error = layer_error(errors, energies)
    torch.testing.assert_close(embedding, student.graph(pixels))
    assert error.item() > 0
    assert len(module.layers) == 1  # one addition
    enable(student.graph, False)
    assert layer_error(*module(pixels)[1:]).item() == pytest.approx(0, abs=1e-5)
    enable(student.graph, True)
    settings = TrainSettings(epochs=2, batch_size=8, layer_weight=0.5)
    history = fine_tune(student, data, settings, tmp_path / "s.pt", teacher=teacher)
    assert len(history.held_out) == 3
    with pytest.raises(TrainingError, match="float network"):
        fine_tune(student, data, settings, tmp_path / "s.pt")


def test_the_untrained_start_is_a_candidate(
    tmp_path: Path, student: FaceModel, data: TrainData
) -> None:
    before = {k: v.clone() for k, v in student.graph.state_dict().items()}
    wild = TrainSettings(epochs=1, batch_size=8, lr=1.0, range_lr=1.0)
    history = fine_tune(student, data, wild, tmp_path / "s.pt")
    assert history.best_step == 0
    for key, value in student.graph.state_dict().items():
        if key.endswith(("latent", "log_scale")):
            assert torch.equal(value, before[key]), key


def test_nan_stops_the_run(tmp_path: Path, student: FaceModel, data: TrainData) -> None:
    data.plain[:] = np.nan
    data.mirrored[:] = np.nan
    with pytest.raises(TrainingError, match="loss is nan at step 0"):
        fine_tune(student, data, TrainSettings(epochs=1), tmp_path / "s.pt")


def test_foreign_state_is_refused(tmp_path: Path, student: FaceModel, data: TrainData) -> None:
    (tmp_path / "s.pt").write_bytes(b"not a state")
    with pytest.raises(RunError, match=r"s\.pt: cannot be resumed"):
        fine_tune(student, data, TrainSettings(epochs=1), tmp_path / "s.pt", resume=True)


def test_failing_compiler_falls_back(
    tmp_path: Path,
    network: nn.Module,
    contract: FaceContract,
    data: TrainData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> object:
        def call(_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no working C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    said: list[str] = []
    settings = TrainSettings(epochs=12, batch_size=8, compile=True)
    student = trainable(load_model(network, contract=contract))
    history = fine_tune(student, data, settings, tmp_path / "s.pt", say=said.append)
    assert not history.compiled
    assert any("torch.compile failed (no working C++ compiler)" in text for text in said)


def test_bank_is_private_and_reused(
    tmp_path: Path, network: nn.Module, contract: FaceContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFQ_CACHE", str(tmp_path))
    teacher = Embedder.open(network, contract=contract)
    faces = make_faces().images
    first = TeacherBank.build(teacher, faces, key="k")
    assert first.path is not None
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    np.testing.assert_allclose(first.mirrored, teacher.embed(faces[:, :, ::-1]))
    calls: list[int] = []
    monkeypatch.setattr(Embedder, "embed", lambda *_, **__: calls.append(1))
    again = TeacherBank.build(teacher, faces, key="k")
    assert not calls
    np.testing.assert_array_equal(again.plain, first.plain)
    first.path.write_bytes(b"damaged")
    monkeypatch.undo()
    monkeypatch.setenv("EFQ_CACHE", str(tmp_path))
    np.testing.assert_allclose(TeacherBank.build(teacher, faces, key="k").plain, first.plain)
    assert TeacherBank.build(teacher, faces, key="k", cache=False).path is None


def test_rate_follows_the_loss_before_training(
    tmp_path: Path, student: FaceModel, data: TrainData
) -> None:
    said: list[str] = []
    settings = TrainSettings(epochs=1, batch_size=8)
    history = fine_tune(student, data, settings, tmp_path / "s.pt", say=said.append)
    assert strangers(data.plain) > 0.5  # a network that was never trained
    rate = rate_for(history.held_out[0][1] / (1 - strangers(data.plain)), 8)
    assert any(f"learning rate {rate:.2g}" in line for line in said)
    assert rate_for(0.005, 16) == rate_for(0.005) / 4
    assert rate_for(0.005) == pytest.approx(0.12 / 127, rel=0.02)
    assert rate_for(0.5) == rate_for(0.1) == 0.004
    assert Recipe.create({"teacher": "t", "faces": "f"}).training.lr is None
    groups = parameter_groups(student.graph, settings)
    steps = [g for g in groups if g["base_lr"] is not None]
    assert [g["base_lr"] for g in steps] == pytest.approx([4e-4 * 2**2.5, 4e-4])  # 3 and 8 bits


@pytest.mark.parametrize(("loss", "kept"), [("none", 1), ("cosine", 0)])
def test_without_distillation_the_last_weights_are_kept(
    loss: str, kept: int, tmp_path: Path, student: FaceModel, data: TrainData
) -> None:
    """Steps this wide lead away from the teacher, so distillation falls back on the start."""
    data.identities = np.repeat(np.arange(12), 4)
    settings = TrainSettings(epochs=1, batch_size=12, lr=1.0, loss=loss, metric="ours")
    before = copy.deepcopy(student.graph.state_dict())
    history = fine_tune(student, data, settings, tmp_path / "s.pt")
    assert history.held_out[1][1] > history.held_out[0][1]
    assert history.best_step == kept * history.held_out[-1][0]
    now = student.graph.state_dict()
    assert any((now[k] != before[k]).any() for k in now if "latent" in k) == bool(kept)


@pytest.mark.parametrize("metric", ["none", "ours"])
def test_a_batch_in_microbatches_trains_alike(
    metric: str, tmp_path: Path, student: FaceModel, data: TrainData
) -> None:
    """Gradients of microbatches add up to the batch's, also of pairs that reach across them."""
    data.identities = np.repeat(np.arange(12), 4)
    ends = []
    for memory_gb in (1e-6, 1e3):
        said: list[str] = []
        settings = TrainSettings(
            epochs=1, batch_size=12, lr=1e-3, metric=metric, memory_gb=memory_gb
        )
        copied = copy.deepcopy(student)
        fine_tune(copied, data, settings, tmp_path / f"{memory_gb}.pt", say=said.append)
        trained = torch.load(tmp_path / f"{memory_gb}.pt", weights_only=True)["model"]
        ends.append({k: v for k, v in trained.items() if "latent" in k})
        assert any("in 6 microbatches of 2" in line for line in said) == (memory_gb < 1)
    before = student.graph.state_dict()
    # in all, because Adam makes whole steps of gradients that are nothing but rounding
    moved, apart = (
        sum(float((ends[0][k] - other[k]).square().sum()) for k in ends[0]) ** 0.5
        for other in (before, ends[1])
    )
    assert moved > 1e-3
    assert apart < 0.05 * moved


def test_microbatches_of_a_batch() -> None:
    # never below nothing: what other tests freed may not be in memory any more
    now = max(psutil.Process().memory_info().rss - freed_memory(), 0) / 2**20
    assert microbatch_size(64, 2**20, 0, now + 1000)[0] == 64
    assert microbatch_size(64, 2**20, 0, now + 60)[0] == 32
    assert microbatch_size(64, 2**20, 0, 1)[0] == 2
    assert microbatch_size(64, 2**20, 2**20, now + 90)[0] == 16  # nine copies of a million weights
    assert microbatch_size(7, 2**20, 0, 1)[0] == 7
    layer = nn.Sequential(nn.Linear(8, 16), nn.Sigmoid(), nn.Linear(16, 4))
    # kept an image: the sigmoid's output, which the second layer reads too, and the input
    watched: list[weakref.ref[torch.Tensor]] = []

    class KeepsItsOutput(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = layer(x).exp()
            watched.append(weakref.ref(y))
            return y

    saved_bytes(KeepsItsOutput(), torch.rand(4, 8))
    gc.collect()
    assert all(ref() is None for ref in watched)
    assert saved_bytes(layer, torch.rand(4, 8)) == pytest.approx(4 * 16 + 4 * 8, abs=4 * 8)


def test_freed_memory_is_seen() -> None:
    """What is freed stays in the process and is not counted twice."""
    if not keep_freed_memory():
        pytest.skip("no glibc")
    held = torch.zeros(2**26)  # 256 MB
    before = freed_memory()
    del held
    assert freed_memory() - before > 2**27


def test_damped_weights_end_nearer_to_their_codes(
    tmp_path: Path, student: FaceModel, data: TrainData
) -> None:
    away = []
    for damping in (0.0, 1.0):
        settings = TrainSettings(epochs=6, batch_size=8, lr=5e-3, damping=damping)
        trained = copy.deepcopy(student)
        history = fine_tune(trained, data, settings, tmp_path / f"{damping}.pt")
        assert history.best_step > 0
        layers = [m for m in trained.graph.modules() if isinstance(m, QuantConv2d | QuantLinear)]
        away.append(np.mean([float((m.ratio() - m.nearest_codes()).abs().mean()) for m in layers]))
    assert away[1] < 0.8 * away[0]
