"""The command line: every verb helps, works, and fails with one clear line."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import onnx
import pytest
from torch import nn

from efquantface.contract import FaceContract
from efquantface.distill import trainer
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from efquantface.recipe import Recipe
from formats import write_rec
from program import efq

ROOT = Path(__file__).parents[2]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert efq("--version") == 0
    assert capsys.readouterr().out == f"efquantface {version('efquantface')}\n"


@pytest.fixture
def teacher(tmp_path: Path, network: nn.Module, contract: FaceContract) -> Path:
    path = tmp_path / "teacher.onnx"
    write_onnx(load_model(network, contract=contract), path)
    return path


@pytest.mark.parametrize(
    "verb",
    [
        "",
        "compress",
        "evaluate",
        "inspect",
        "embed",
        "benchmark",
        "export",
        "align",
        "data",
        "demo",
        "models",
        "env",
    ],
)
def test_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert efq(*([verb] if verb else []), "--help") == 0
    assert "Usage" in capsys.readouterr().out


def test_the_verbs_together(
    tmp_path: Path, teacher: Path, faces_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert (
        efq("compress", teacher, faces_dir, "-o", run, "--no-finetune", "--no-cache",
            "--eval", f"folder={faces_dir}", "--threshold", "0.5", "--no-benchmark") == 0
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "parity passed" in out
    assert "folder all pairs" in out
    assert "x smaller" in out
    student = run / "student.onnx"
    numbers = tmp_path / "numbers.json"
    assert (
        efq(
            "evaluate",
            teacher,
            "--against",
            student,
            "--eval",
            f"folder={faces_dir}",
            "--json",
            numbers,
        )
        == 0
    )
    metrics = json.loads(numbers.read_text())[0]["metrics"]
    stored = json.loads((run / "metrics.json").read_text())["protocols"][0]["metrics"]
    assert metrics[0] == stored[0]  # the run's own numbers, reproduced
    assert efq("evaluate", run, "--eval", f"folder={faces_dir}") == 0
    assert efq("benchmark", teacher, "--against", student, "--rounds", "3", "--batch", "2") == 0
    assert "times as fast" in capsys.readouterr().out
    again = tmp_path / "exported" / "again.onnx"
    assert efq("export", run, "-o", again) == 0
    assert "matrix products run in int8" in capsys.readouterr().out
    assert len(onnx.load(str(again)).graph.node) == len(onnx.load(str(student)).graph.node)
    assert efq("export", run, "-o", again) == 2
    assert "--force" in capsys.readouterr().err
    assert efq("export", run, "--format", "openvino", "-o", tmp_path / "s.xml") == 0
    assert efq("evaluate", tmp_path / "s.xml", "--eval", f"folder={faces_dir}") == 0
    assert efq("export", teacher, "--float", "-o", tmp_path / "float.onnx") == 0
    capsys.readouterr()
    assert efq("export", run, "--format", "scales", "-o", tmp_path / "s.json") == 2
    assert "ends in .onnx" in capsys.readouterr().err
    assert efq("export", run, "--format", "tflite", "-o", tmp_path / "s.tflite") == 2
    assert "choose from onnx, openvino, scales" in capsys.readouterr().err
    one = next(p for p in sorted(faces_dir.iterdir()) if p.is_dir())
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / one.name).symlink_to(one)
    assert efq("evaluate", run, "--eval", tmp_path / "one") == 2
    assert f"images are of {one.name}" in capsys.readouterr().err


def test_recipe_and_flags(tmp_path: Path, teacher: Path, faces_dir: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"teacher: {teacher}\nfaces: {faces_dir}\nepochs: 0\ncache: false\nbenchmark: false\n"
    )
    assert efq("compress", "--recipe", recipe, "-o", tmp_path / "run", "--hold-out", "0.3") == 0
    written = Recipe.read(tmp_path / "run" / "recipe.yaml")
    assert (written.training.epochs, written.hold_out, written.cache) == (0, 0.3, False)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_run_told_to_end_goes_on_later(
    tmp_path: Path, teacher: Path, faces_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = (
        "compress", teacher, faces_dir, "-o", run, "--epochs", "2", "--batch-size", "8",
        "--no-benchmark", "--no-cache",
    )  # fmt: skip
    original = trainer._Trainer._train_step

    def kills(self: trainer._Trainer, model: object, optimizer: object) -> None:
        if self.step == 3:
            os.kill(os.getpid(), getattr(signal, name))
        original(self, model, optimizer)

    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    # a shell's background jobs ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(trainer._Trainer, "_train_step", kills)
    try:
        assert efq(*words) == 130
        monkeypatch.setattr(trainer._Trainer, "_train_step", original)
        assert (run / "state.pt").is_file()
        assert not (run / "student.onnx").exists()
        assert efq(*words, "--resume") == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "resuming at step 3" in (run / "log.txt").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("teacher: a\nfaces: b\nbits: w9a8\n", "w9a8"),
        ("teacher: a\nfaces: b\nepoch: 3\n", "epoch"),
        ("teacher: a\n", "faces"),
        ("teacher: a\nfaces: b\nepochs: -1\n", "-1"),
        ("[1, 2", "not YAML"),
        ("just text", "no recipe"),
    ],
)
def test_bad_recipes(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    assert efq("compress", "--recipe", path) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert message in error


def test_user_errors_are_one_line(
    tmp_path: Path, teacher: Path, faces_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        ("compress", tmp_path / "gone.onnx", faces_dir): "no such file",
        ("compress", teacher, tmp_path / "gone"): "no such folder",
        ("compress", teacher, faces_dir, "--device", "cuda"): "CUDA",
        ("evaluate", teacher, "--eval", "lfw"): "NAME=PATH",
        ("evaluate", teacher, "--eval", f"folder={faces_dir}", "--device", "tpu9"): "tpu9",
        ("export", teacher): "float network",
        ("models", "fetch", "nothing"): "unknown",
    }
    for words, message in cases.items():
        if words[0] == "compress":
            words = (*words, "-o", tmp_path / "run", "--force")
        assert efq(*words) != 0, words
        error = capsys.readouterr().err
        assert message in error, (words, error)
        assert "Traceback" not in error


def test_every_shipped_recipe_is_valid() -> None:
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        Recipe.read(path)


def test_models_and_env(capsys: pytest.CaptureFixture[str]) -> None:
    assert efq("models", "list") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("dlib-resnet", "dcgan-faces", "iresnet100"))
    assert efq("env") == 0
    assert "onnxruntime_providers" in json.loads(capsys.readouterr().out)


def test_data_verbs(tmp_path: Path, faces_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(faces_dir.rglob("*.png"))
    write_rec(tmp_path / "train.rec", [f.read_bytes() for f in files], [i // 4 for i in range(48)])
    assert efq("data", "inspect", tmp_path / "train.rec") == 0
    assert "12 identities of 4 to 4 images" in capsys.readouterr().out
    assert efq("data", "extract", tmp_path / "train.rec", "-o", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 48
    assert efq("data", "inspect", tmp_path / "gone.rec") == 2
    assert "no such file" in capsys.readouterr().err


def test_export_replaces_all_of_its_files_or_none(
    tmp_path: Path, teacher: Path, faces_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert efq("compress", teacher, faces_dir, "-o", run, "--no-finetune", "--no-cache",
               "--no-benchmark") == 0  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    (out / "s.scales.json").write_text("mine")
    words = ("export", run, "--format", "scales", "-o", out / "s.onnx")
    assert efq(*words) == 2
    assert "s.scales.json: exists" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["s.scales.json"]
    assert efq(*words, "--force") == 0
    assert str(out / "s.scales.json") in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["s.onnx", "s.scales.json"]
    assert (out / "s.scales.json").read_text() != "mine"
