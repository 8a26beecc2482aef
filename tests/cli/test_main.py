"""The command line: every verb helps, works, and fails with one clear line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from torch import nn

from efquantface.contract import FaceContract
from efquantface.distill import trainer
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from efquantface.pipeline import run_dir
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


VERBS = [
    *("compress", "align", "evaluate", "inspect", "embed", "benchmark", "export", "demo", "env"),
    "compare-gallery",
    *("data inspect", "data extract", "data subset", "data check"),
    *("models list", "models fetch", "models verify"),
]


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("verb", ["", "data", "models", *VERBS])
def test_help(verb: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert efq(*verb.split(), flag) == 0
    out = capsys.readouterr().out
    assert "Usage" in out
    if verb in VERBS:
        assert f"efq {verb}" in out.partition("Example")[2]
        assert "--quiet" in out
        assert "--verbose" in out


def test_completion_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    assert efq("-h") == 0
    assert "--install-completion" in capsys.readouterr().out


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
    capsys.readouterr()
    assert efq("benchmark", student, "--rounds", "2", "--batch", "2", "--json", "-") == 0
    assert [t["batch"] for t in json.loads(capsys.readouterr().out)["timings"]] == [2]
    assert efq("inspect", run, "--layers", "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["quantized"]
    assert found["contract"]["embedding_size"] == 16
    assert found["layers"][-1]["shape"] == [16]
    assert efq("embed", student, faces_dir, "-o", tmp_path / "e.npz", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["embeddings"] == 48
    words = ("evaluate", student, "--eval", f"folder={faces_dir}")
    assert efq(*words, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)[0]["metrics"]
    assert efq(*words, "-q") == 0
    quiet = capsys.readouterr().out
    assert efq(*words) == 0
    assert quiet in capsys.readouterr().out
    assert "embedding" not in quiet.partition("shares")[0]
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
    assert efq("export", run, "--format", "tflite", "-o", tmp_path / "s.tflite") == 0
    assert "layers equal to the student's codes" in capsys.readouterr().out
    assert efq("export", teacher, "--float", "-o", tmp_path / "float.onnx") == 0
    capsys.readouterr()
    assert efq("export", run, "--format", "scales", "-o", tmp_path / "scales.json") == 0
    assert (tmp_path / "scales.onnx").is_file()
    assert efq("export", run, "--format", "scales", "-o", tmp_path / "s.txt") == 2
    assert "ends in .onnx" in capsys.readouterr().err
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compress GONE.onnx FACES", "no such file"),
        ("compress TEACHER GONE", "no such folder"),
        ("compress FACES TEACHER", "the model comes first"),
        ("compress TEACHER", "TEACHER and FACES are needed"),
        ("compress TEACHER FACES --device cuda", "CUDA"),
        ("compress TEACHER FACES --device gpu", "write cpu or cuda"),
        ("compress TEACHER FACES --bitz w8a8", "no option --bitz; did you mean --bits?"),
        ("compress TEACHER FACES --epochs two", "a whole number from 0 up to 1,000, not 'two'"),
        ("compress TEACHER FACES --epochs=-1", "a whole number from 0 up to 1,000, not '-1'"),
        ("compress TEACHER FACES --loss cosin", "did you mean cosine?"),
        ("compress TEACHER FACES --preprocess insigtface", "did you mean insightface?"),
        ("compress TEACHER FACES --layer-bits fc", "PATTERN=w4a8"),
        ("compress TEACHER FACES --protocol arcfac", "did you mean arcface?"),
        ("compress TEACHER FACES --exclude GONE", "--exclude"),
        ("compress TEACHER FACES --eval FACES/person00", "does not say who is who"),
        ("compress TEACHER FACES --json GONE/x.json", "a folder that is there"),
        ("compres TEACHER FACES", "did you mean compress?"),
        ("TEACHER FACES", "a verb comes first"),
        ("data chek FACES", "did you mean check?"),
        ("data subset FACES -o x.txt --by identity", "did you mean identities?"),
        ("evaluate TEACHER", "--eval"),
        ("evaluate TEACHER --eval lfw", "NAME=PATH"),
        ("evaluate TEACHER --eval folder=FACES --device tpu9", "tpu9"),
        ("evaluate TEACHER --eval folder=FACES --threshold 3", "a number from -1 up to 1, not '3'"),
        (
            "evaluate TEACHER --eval folder=FACES --backend onnx",
            "auto, onnxruntime, openvino, litert, torch",
        ),
        ("evaluate TEACHER --eval folder=FACES --preprocess arcface", "insightface"),
        ("benchmark TEACHER --rounds 0", "a whole number from 1, not '0'"),
        ("export TEACHER", "float network"),
        ("export TEACHER --format mnn", "choose from onnx, openvino"),
        ("models fetch nothing", "unknown"),
    ],
)
def test_user_errors_are_one_line(
    words: str, message: str, tmp_path: Path, teacher: Path, faces_dir: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    named = words.replace("TEACHER", teacher.name).replace("FACES", faces_dir.name)
    message = message if "are needed" in message else message.replace("TEACHER", teacher.name)
    assert efq(*named.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert "Input should" not in error
    assert not (tmp_path / "efq-run").exists()


def test_a_dry_run_writes_nothing(
    tmp_path: Path, teacher: Path, faces_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("compress", teacher, faces_dir, "-o", tmp_path / "run", "--dry-run", "--no-cache")
    assert efq(*words) == 0
    out = capsys.readouterr().out
    assert "48 images, 12 identities" in out
    assert "minutes" in out
    assert efq(*words, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 48
    assert not (tmp_path / "run").exists()


def test_a_run_stopped_at_once_is_in_nobodys_way(
    tmp_path: Path, teacher: Path, faces_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("compress", teacher, faces_dir, "-o", tmp_path / "run", "--no-finetune", "--no-cache",
             "--no-benchmark")  # fmt: skip

    def stops() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_dir, "environment", stops)
        assert efq(*words) == 130
    assert (tmp_path / "run" / "recipe.yaml").is_file()
    assert efq(*words) == 0


@pytest.mark.parametrize(
    "words",
    ["--help", "compress --help", "--version", "compress a b --bitz 3", "compress a b --bits 99",
     "compres", "evaluate gone --eval gone", "compress gone gone"],
)  # fmt: skip
def test_wrong_usage_is_said_before_anything_heavy_is_imported(words: str) -> None:
    code = (
        "import sys\n"
        "from efquantface.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'onnx', 'onnxruntime', 'lightning_fabric', 'matplotlib', 'scipy', 'cv2', "
        "'numba')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_every_shipped_recipe_is_valid() -> None:
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        Recipe.read(path)


def test_models_and_env(capsys: pytest.CaptureFixture[str]) -> None:
    assert efq("models", "list") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("dlib-resnet", "dcgan-faces", "iresnet100"))
    for words in ([], ["--json", "-"]):
        assert efq("env", *words) == 0
        assert "onnxruntime_providers" in json.loads(capsys.readouterr().out)


def test_data_verbs(tmp_path: Path, faces_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(faces_dir.rglob("*.png"))
    write_rec(tmp_path / "train.rec", [f.read_bytes() for f in files], [i // 4 for i in range(48)])
    assert efq("data", "inspect", tmp_path / "train.rec") == 0
    assert "12 identities of 4 to 4 images" in capsys.readouterr().out
    assert efq("data", "inspect", tmp_path / "train.rec", "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["identities"], found["sizes"]) == (48, 12, {"32x32": 48})
    assert efq("data", "extract", tmp_path / "train.rec", "-o", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 48
    assert efq("data", "inspect", tmp_path / "gone.rec") == 2
    assert "no such folder or file" in capsys.readouterr().err


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
