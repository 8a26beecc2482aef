"""A site as a folder: what is in it, what it replaces, and faults in it that are caught."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from conftest import SmallFaceNet, randomize
from efquantface.contract import FaceContract
from efquantface.errors import ExportError, ModelFileError, ParityError
from efquantface.export.onnx_writer import write_onnx
from efquantface.formats import web
from efquantface.formats.delivery import deliver
from efquantface.formats.measured import decisions
from efquantface.formats.table import FORMATS, Choices
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from program import efq
from students import student_of

WEB = FORMATS["web"]


@pytest.fixture
def student(network: nn.Module, contract: FaceContract) -> FaceModel:
    return student_of(network, contract)[1]


@pytest.fixture
def run(student: FaceModel, tmp_path: Path) -> Path:
    save_checkpoint(student, tmp_path / "run" / "student.safetensors")
    return tmp_path / "run"


def test_everything_is_in_the_folder(student: FaceModel, tmp_path: Path) -> None:
    lines = deliver(student, WEB, tmp_path / "site")
    names = {path.name for path in (tmp_path / "site").iterdir()}
    source = Path(web.__file__).parent / "site"
    assert names == {p.name for p in source.iterdir()} | {
        *("model.tflite", "contract.json", "efquantface.json", "package.json")
    }
    assert FaceContract.read(tmp_path / "site" / "contract.json") == student.contract
    package = json.loads((tmp_path / "site" / "package.json").read_text())
    pins = package["dependencies"].values()
    assert all(pin.replace(".", "").isdigit() for pin in pins)  # of one version each
    settings = json.loads((tmp_path / "site" / "efquantface.json").read_text())
    assert (settings["eyes"], settings["decisions"]) == (None, [])
    assert "makes no decision" in lines[1]


@pytest.mark.parametrize("size", [112, 128])
def test_eyes_only_for_crops_of_the_templates_size(size: int, tmp_path: Path) -> None:
    network = randomize(SmallFaceNet(size=size))
    model = load_model(network, contract=FaceContract(size, size, 16))
    web.write(model, [tmp_path / "site"], Choices())
    eyes = json.loads((tmp_path / "site" / "efquantface.json").read_text())["eyes"]
    assert eyes == ([[38.2946, 51.6963], [73.5318, 51.5014]] if size == 112 else None)


def test_a_runtime_that_cannot_says_why(
    student: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FORMATS["tflite"].room, "refused", lambda _: "has Shrink, too")
    with pytest.raises(ExportError, match="has Shrink"):
        deliver(student, WEB, tmp_path / "site", Choices(runtime="litert"))
    assert not (tmp_path / "site").exists()
    lines = deliver(student, WEB, tmp_path / "site")
    assert "onnxruntime-web; not by @litertjs/core" in lines[0]
    assert "has Shrink" in lines[0]
    assert (tmp_path / "site" / "model.onnx").is_file()


def test_without_litert_it_is_onnxruntime(
    student: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "find_spec", lambda name: None if "litert" in name else True)
    assert "efquantface[litert]" in deliver(student, WEB, tmp_path / "site")[0]
    assert (tmp_path / "site" / "model.onnx").is_file()


FAULTS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "model": ("model.tflite", lambda data: data[:-100] + bytes(100)),
    "contract": ("contract.json", lambda data: data.replace(b'"RGB"', b'"BGR"')),
    "no contract": ("contract.json", lambda _: b"{"),
    "page": ("page.js", lambda data: data.replace(b"similarity", b"cosine", 1)),
    "runtime": ("efquantface.json", lambda data: data.replace(b'"litert"', b'"other"')),
    "outside": ("efquantface.json", lambda data: data.replace(b'"model.', b'"../model.')),
    "settings": ("efquantface.json", lambda _: b"[" * 100_000),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught_and_nothing_stays(
    name: str, student: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, fault = FAULTS[name]
    write = web.write

    def faulty(model: FaceModel, files: list[Path], choices: Choices) -> list[str]:
        lines = write(model, files, choices)
        path = files[0] / file
        path.write_bytes(fault(path.read_bytes()))
        return lines

    monkeypatch.setattr(web, "write", faulty)
    with pytest.raises(ParityError):
        deliver(student, WEB, tmp_path / "site")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_site_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"efquantface\.json"):
        web.open(tmp_path)


def test_force_replaces_a_site_and_nothing_else(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "example.com"
    words = ("export", run, "--format", "web", "-o", site)
    assert efq(*words) == 0
    assert str(site) in capsys.readouterr().out
    (site / "mine.txt").write_text("mine")
    assert efq(*words) == 2
    assert "example.com: exists; add --force" in capsys.readouterr().err
    assert (site / "mine.txt").is_file()
    assert efq(*words, "--force") == 0
    assert not (site / "mine.txt").exists()
    assert (site / "index.html").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["example.com", "run"]
    for other in ("run", "run/student.safetensors"):
        assert efq("export", run, "--format", "web", "-o", tmp_path / other, "--force") == 2
        assert "move it away" in capsys.readouterr().err
    assert (run / "student.safetensors").is_file()


@pytest.mark.parametrize("name", [".", "..", "site.onnx", "x/.."])
def test_names_that_are_no_folders_own(
    name: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    assert efq("export", run, "--format", "web", "-o", name, "--force") == 2
    assert "give it a name of its own" in capsys.readouterr().err
    assert (run / "student.safetensors").is_file()


def test_default_names(
    run: Path, network: nn.Module, contract: FaceContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert efq("export", run, "--format", "web") == 0
    assert (run / "student-web" / "index.html").is_file()
    write_onnx(student_of(network, contract)[0], run / "net.v2.onnx")
    monkeypatch.chdir(run)
    assert efq("export", "net.v2.onnx", "--float", "--format", "web") == 0
    assert (run / "net.v2.float-web" / "index.html").is_file()
    assert efq("export", run, "-o", run / "student-web", "--force") == 2  # no file of this name


def protocol(
    name: str, pairs: int, thresholds: dict[str, float], flip: str = "off"
) -> dict[str, object]:
    metrics = [
        {"name": f"threshold at FAR={far}", "teacher": 0.5, "student": value}
        for far, value in thresholds.items()
    ]
    metrics.append({"name": "EER", "teacher": 0.1, "student": 0.1})
    flags = f"flip {flip}, embeddings normalized, cosine"
    return {"protocol": name, "counts": {"impostor": pairs}, "flags": flags, "metrics": metrics}


def test_thresholds_are_those_of_the_largest_protocol_without_mirrors(tmp_path: Path) -> None:
    small = protocol("lfw pairs", 3000, {"0.01": 0.2})
    large = protocol("held-out all pairs", 90_000, {"0.01": 0.21, "0.001": 0.3, "0.0001": 0.4})
    mirrored = protocol("cfp pairs", 10**6, {"0.01": 0.9}, flip="on")
    results = {"protocols": [small, large, mirrored]}
    (tmp_path / "metrics.json").write_text(json.dumps(results))
    found = decisions(tmp_path / "student.safetensors")
    assert [(d["far"], d["threshold"], d["preferred"]) for d in found] == [
        (0.01, 0.21, False),
        (0.001, 0.3, True),
        (0.0001, 0.4, False),
    ]
    assert {d["measured"] for d in found} == {
        "held-out all pairs (90,000 pairs of different people)"
    }
    assert decisions(tmp_path / "other.safetensors") == []  # not this run's student


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"protocols": 3}', '{"protocols": [3]}', '{"protocols": []}', "[" * 10**5,
     json.dumps({"protocols": [protocol("x", 10, {})]}),
     json.dumps({"protocols": [protocol("x", 10, {"-1": 0.1, "2": 0.1, "0.1": 7})]}),
     json.dumps({"protocols": [protocol("x", 10, {"0.1": 0.1})]}).replace("10", "1e999"),
     json.dumps({"protocols": [protocol("x", 10, {"0.1": 0.1})]}).replace("0.1", "1" + "0" * 400)],
)  # fmt: skip
def test_results_that_say_nothing_decide_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(text)
    assert decisions(tmp_path / "student.safetensors") == []
    assert decisions(None) == []
