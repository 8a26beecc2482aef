"""The main job in miniature, through the public API."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console as RichConsole
from torch import nn

from conftest import make_faces
from efquantface import Embedder, FaceContract, compress, evaluate
from efquantface.callbacks import Callback
from efquantface.data.faces import FaceSet
from efquantface.errors import EfqError, ParityError, RecipeError, RunError
from efquantface.evaluation.sets import EvalSet
from efquantface.graph.checkpoint import load_checkpoint
from efquantface.quantize.vocabulary import OPERATORS
from efquantface.recipe import Recipe
from efquantface.report.tables import terminal_table
from efquantface.verbs.inspect import describe_model

FAST = {"benchmark": False, "cache": False, "quiet": True, "batch_size": 8}


def test_compress_writes_a_whole_run(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    run = tmp_path / "run"
    done = compress(
        network,
        faces,
        run,
        contract=contract,
        epochs=1,
        benchmark=True,
        **{k: v for k, v in FAST.items() if k != "benchmark"},
    )
    files = {p.name for p in run.iterdir()}
    assert files == {
        "student.onnx", "student.safetensors", "metrics.json", "report.html", "recipe.yaml",
        "env.json", "inputs.json", ".lock", "log.txt", "MODEL_CARD.md",
    }  # fmt: skip
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["parity"]["problems"] == []
    executed = metrics["parity"]["executed"]
    assert executed["convolutions"] == executed["integer_convolutions"] > 0
    assert {row["name"] for row in metrics["speed"]} == {"teacher", "best float form", "student"}
    protocol = metrics["protocols"][0]
    assert protocol["protocol"] == "held-out all pairs"
    assert protocol["counts"] == {"genuine": 12, "impostor": 16, "images": 8}
    assert abs(metrics["embedding_lengths"]["held-out"]["ratio"] - 1) < 0.05
    assert Recipe.read(run / "recipe.yaml").training.epochs == 1
    environment = json.loads((run / "env.json").read_text())
    assert environment["seed"] == 0
    assert environment["packages"]["torch"]
    page = (run / "report.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")
    assert "data:image/jpeg" not in page  # faces only when asked for
    # the file, the checkpoint and the student in memory give the same embeddings
    by_file = Embedder.open(run / "student.onnx").embed(faces.images)
    by_checkpoint = Embedder.open(run).embed(faces.images)
    by_memory = done.student.embed_pixels(torch.from_numpy(contract.pixels(faces.images))).numpy()
    np.testing.assert_allclose(by_checkpoint, by_memory, atol=1e-5)
    cosine = (by_file * by_memory).sum(1) / np.linalg.norm(by_file, axis=1)
    assert (cosine / np.linalg.norm(by_memory, axis=1)).mean() > 0.999
    assert load_checkpoint(run / "student.safetensors", OPERATORS).quantized


def test_callbacks_and_logging_hear_everything(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    stages: dict[str, list[tuple[int, int]]] = {}
    steps: list[tuple[int, int, float]] = []
    metrics: list[tuple[str, dict[str, float]]] = []

    class Told(Callback):
        def on_stage(self, name: str, done: int, total: int) -> None:
            stages.setdefault(name, []).append((done, total))

        def on_step(self, step: int, total: int, loss: float) -> None:
            steps.append((step, total, loss))

        def on_metrics(self, name: str, values: Mapping[str, float]) -> None:
            metrics.append((name, dict(values)))

    with caplog.at_level("INFO", "efquantface"):
        done = compress(
            network,
            faces,
            tmp_path / "run",
            contract=contract,
            epochs=2,
            callbacks=[Told()],
            **FAST,
        )
    history = done.results.history
    assert [s for s, _, _ in steps] == list(range(1, 11))
    assert {s: loss for s, _, loss in steps}.items() >= dict(history.steps).items()
    held = [(m["step"], m["held-out loss"]) for name, m in metrics if name == "fine-tuning"]
    assert held == history.held_out
    assert metrics[-1] == ("held-out all pairs", done.results.protocols[0].values())
    assert {"teacher's embeddings", "fine-tuning", "held-out: student"} <= set(stages)
    for name in ("teacher's embeddings", "fine-tuning", "held-out: student"):
        assert stages[name] == sorted(stages[name])
    assert stages["fine-tuning"][-1] == (10, 10)
    said = [r.getMessage() for r in caplog.records if r.name == "efquantface"]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert any("parity passed" in text for text in said)
    assert all(text in log for text in said)


def test_results_are_finished_and_short(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    done = compress(network, faces, tmp_path / "run", contract=contract, epochs=0, **FAST)
    with pytest.raises(dataclasses.FrozenInstanceError):
        done.results.title = "another"  # type: ignore[misc]
    for value in (done, done.results, done.results.protocols):
        assert "\n" not in repr(value)
        assert len(repr(value)) < 300
    assert done.results.records() == done.results.protocols.records()
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())["protocols"]
    assert stored[0]["metrics"][0]["student"] == done.results.records()[0]["student"]
    stream = io.StringIO()
    RichConsole(file=stream, width=100, color_system=None).print(terminal_table(done.results))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert any("file size, MB" in line and "x smaller" in line for line in lines)
    assert any("held-out all pairs" in line for line in lines)


def test_student_is_close_to_its_teacher(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    done = compress(network, faces, tmp_path / "run", contract=contract, epochs=0, **FAST)
    with torch.no_grad():
        teacher = network(torch.from_numpy(contract.normalize(faces.images))).numpy()
    student = Embedder.open(done.run.onnx).embed(faces.images)
    cosine = (teacher * student).sum(1) / np.linalg.norm(teacher, axis=1)
    assert (cosine / np.linalg.norm(student, axis=1)).min() > 0.99


def test_module_is_not_changed(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    before = {k: v.clone() for k, v in network.state_dict().items()}
    compress(network, faces, tmp_path / "run", contract=contract, epochs=1, **FAST)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_killed_run_resumes_to_the_same_weights(
    tmp_path: Path,
    network: nn.Module,
    contract: FaceContract,
    faces: FaceSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from efquantface.distill import trainer

    options = {"contract": contract, "epochs": 3, **FAST}
    whole = compress(network, faces, tmp_path / "whole", **options)

    original = trainer._Trainer._train_step

    def stops(self: trainer._Trainer, model: object, optimizer: object) -> None:
        if self.step == 7:
            raise KeyboardInterrupt
        original(self, model, optimizer)

    monkeypatch.setattr(trainer._Trainer, "_train_step", stops)
    with pytest.raises(KeyboardInterrupt):
        compress(network, faces, tmp_path / "broken", **options)
    assert (tmp_path / "broken" / "state.pt").is_file()
    monkeypatch.setattr(trainer._Trainer, "_train_step", original)
    resumed = compress(network, faces, tmp_path / "broken", resume=True, **options)
    assert "resuming at step 7" in (tmp_path / "broken" / "log.txt").read_text()
    for (name, a), b in zip(
        whole.student.graph.state_dict().items(),
        resumed.student.graph.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a, b), name
    assert (tmp_path / "whole" / "student.onnx").read_bytes() == (
        tmp_path / "broken" / "student.onnx"
    ).read_bytes()


def test_existing_run_is_not_overwritten(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    run = tmp_path / "run"
    options = {"contract": contract, "epochs": 0, **FAST}
    compress(network, faces, run, **options)
    stamp = (run / "student.onnx").stat().st_mtime_ns
    with pytest.raises(RunError, match="--force"):
        compress(network, faces, run, **options)
    with pytest.raises(RunError, match="another bits"):
        compress(network, faces, run, resume=True, bits="w6a8", **options)
    assert (run / "student.onnx").stat().st_mtime_ns == stamp
    compress(network, faces, run, force=True, **options)
    other = tmp_path / "documents"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    for how in ({"force": True}, {"resume": True}):
        with pytest.raises(RunError, match="is not a run"):
            compress(network, faces, other, **how, **options)
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]


def test_what_cannot_be_read_leaves_everything_as_it_was(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    bad, run = tmp_path / "bad.onnx", tmp_path / "run"
    bad.write_text("hello")
    with pytest.raises(EfqError, match=r"bad\.onnx"):
        compress(bad, faces, run)
    assert not run.exists()
    compress(network, faces, run, contract=contract, epochs=0, **FAST)
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    with pytest.raises(EfqError, match=r"bad\.onnx"):
        compress(bad, faces, run, force=True)
    with pytest.raises(EfqError, match="nowhere"):
        compress(network, faces, run, contract=contract, force=True, eval=("lfw=nowhere",), **FAST)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    log = (run / "log.txt").read_text()
    assert "teacher: SmallFaceNet" in log  # said before the folder was there


def test_failed_parity_is_not_delivered(
    tmp_path: Path,
    network: nn.Module,
    contract: FaceContract,
    faces: FaceSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    from efquantface.pipeline import deliver

    def wrong(model: object, path: Path, metadata: object = None) -> None:
        from efquantface.export.onnx_writer import write_onnx

        write_onnx(model, path)  # type: ignore[arg-type]
        proto = onnx.load(str(path))
        weights = next(i for i in proto.graph.initializer if i.data_type == onnx.TensorProto.INT8)
        codes = onnx.numpy_helper.to_array(weights).copy()
        codes[0] = -codes[0]
        weights.CopyFrom(onnx.numpy_helper.from_array(codes, weights.name))
        onnx.save(proto, str(path))

    monkeypatch.setattr(deliver, "write_onnx", wrong)
    with pytest.raises(ParityError, match="layer stem"):
        compress(network, faces, tmp_path / "run", contract=contract, epochs=0, **FAST)
    assert not (tmp_path / "run" / "student.onnx").exists()


def test_few_people_hold_out_one_of_them(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    """Of fewer than four identities images are held out, and they may all be of one person."""
    faces = make_faces(identities=2, each=20)
    faces.identities[:] = np.arange(40) == 39
    done = compress(network, faces, tmp_path / "run", contract=contract, epochs=0, **FAST)
    (protocol,) = done.results.protocols
    assert protocol.counts["impostor"] == 0
    assert protocol.metric("cosine to teacher").student > 0.9
    few = faces.subset(np.arange(3))
    with pytest.raises(EfqError, match="give at least 4"):
        compress(network, few, tmp_path / "few", contract=contract, epochs=0, **FAST)
    assert not (tmp_path / "few").exists()


def test_unlabelled_faces(tmp_path: Path, network: nn.Module, contract: FaceContract) -> None:
    faces = make_faces(identities=80, each=1)
    faces.identities[:] = 0  # one folder
    faces.identity_names = ["all of them"]
    done = compress(
        network, faces, tmp_path / "run", contract=contract, epochs=0, hold_out=0.5, **FAST
    )
    assert "taken as unlabelled" in (tmp_path / "run" / "log.txt").read_text()
    protocol = done.results.protocols[0]
    assert protocol.counts == {"genuine": 0, "impostor": 780, "images": 40}
    assert protocol.metric("cosine to teacher").student > 0.99
    assert any(m.name.startswith("same decisions") for m in protocol.metrics)


def test_evaluate_two_models(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    done = compress(network, faces, tmp_path / "run", contract=contract, epochs=0, **FAST)
    people = EvalSet("others", make_faces(seed=5), None, True)
    results = evaluate(
        Embedder.open(network, contract=contract),
        people,
        against=done.run.onnx,
        threshold=0.5,
        quiet=True,
    )
    metric = results[0].metric("TAR@FAR=0.01")
    assert metric.student is not None
    assert metric.loss == pytest.approx(metric.teacher - metric.student)
    assert results[0].metric("FRR at 0.5").teacher >= 0


def test_pruning_by_time_is_repeated_from_its_timings(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    """What was measured is kept; a run that is given it makes the same student without a clock."""
    options: dict[str, Any] = {
        "contract": contract, "epochs": 0, "prune": 0.3, "prune_by": "time", "bits": "w8a8",
        "round_to": 2, **FAST,
    }  # fmt: skip
    first = compress(network, faces, tmp_path / "first", **options)
    timings = tmp_path / "first" / "timings.json"
    metrics = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert metrics["pruned"]["macs"] <= 0.7 * metrics["pruned"]["macs_before"]
    assert metrics["latency"]["goal"] is None
    (block,) = metrics["latency"]["blocks"]
    assert block["gone"] == (metrics["pruned"]["blocks"] == [block["name"]])
    known = json.loads(timings.read_text())
    assert metrics["latency"]["before"] in known.values()
    page = (tmp_path / "first" / "report.html").read_text()
    assert "On one thread of this machine, without pruning the student takes" in page
    again = compress(network, faces, tmp_path / "again", timings=str(timings), **options)
    assert again.run.onnx.read_bytes() == first.run.onnx.read_bytes()
    with pytest.raises(EfqError, match="--timings"):
        compress(network, faces, tmp_path / "x", timings=str(tmp_path / "none.json"), **options)


@pytest.mark.parametrize("bits", [None, "w8a8"])
def test_pruning_alone_and_with_bits(
    bits: str | None, tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    options = {} if bits is None else {"bits": bits}
    done = compress(
        network, faces, tmp_path / "run", contract=contract, epochs=4, prune=0.5, round_to=2, lr=1e-3,
        **options, **FAST,
    )  # fmt: skip
    assert Recipe.read(tmp_path / "run" / "recipe.yaml").bits == (bits or "float")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    pruned = metrics["pruned"]
    assert pruned["macs"] <= 0.5 * pruned["macs_before"]
    assert any(after < before for _, before, after in pruned["layers"])
    assert metrics["parity"]["problems"] == []
    assert (metrics["parity"]["executed"]["integer_convolutions"] > 0) == (bits is not None)
    losses = [loss for _, loss in metrics["history"]["steps"]]
    assert losses[-1] < losses[0]  # a fit in closed form is hard to beat on faces held out
    again = Embedder.open(tmp_path / "run")  # stored as data, loaded without code
    file = Embedder.open(done.run.onnx)
    a, b = again.embed(faces.images), file.embed(faces.images)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > (0.99 if bits else 0.999999)
    assert abs(metrics["embedding_lengths"]["held-out"]["ratio"] - 1) < 0.05
    page = (tmp_path / "run" / "report.html").read_text()
    assert "multiply-accumulates were removed" in page
    text = "\n".join(describe_model(tmp_path / "run").lines)
    assert "of 32 channels" in text
    with pytest.raises(RecipeError, match="prune"):
        compress(network, faces, tmp_path / "x", contract=contract, prune=1.0, **FAST)
    with pytest.raises(RecipeError, match="nothing would be compressed"):
        compress(network, faces, tmp_path / "x", contract=contract, bits="float", **FAST)
