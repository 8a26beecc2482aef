"""What is said of a file that is wrong somewhere, and of speed that is little."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from torch import nn

from conftest import make_faces
from efquantface import compress
from efquantface.contract import FaceContract
from efquantface.embedding.benchmark import Speed, Timing
from efquantface.export.portability import WITHOUT_VNNI
from efquantface.export.without_vnni import WithoutVnni
from efquantface.pipeline.method import CompressResult
from efquantface.report import sentences
from efquantface.report.results import BEST_FLOAT, STUDENT, TEACHER, Results
from efquantface.report.tables import terminal_table
from efquantface.runtime.busy import Load

FOUND = WithoutVnni(512, False, (0.9953, 0.9451), 0.001, (0.8407, 0.8343, 0.723))


def shown(results: Results, width: int = 100) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(terminal_table(results))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def speed(kind: str = "x86 with VNNI", *ratios: float) -> Speed:
    timings = [
        Timing(name, batch, 2.0, 1.0, 3.0, 2.0, {TEACHER: 2.0, BEST_FLOAT: ratio})
        for batch, ratio in zip((1, 16), ratios or (1.5, 1.5), strict=True)
        for name in (TEACHER, BEST_FLOAT, STUDENT)
    ]
    return Speed(timings, 1, f"X 1, {kind}", kind, Load(4, 0.5, 0.2, 0.0))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> CompressResult:
    from conftest import SmallFaceNet, randomize

    contract = FaceContract(height=32, width=32, embedding_size=16, template="unknown")
    network: nn.Module = randomize(SmallFaceNet())
    return compress(
        network, make_faces(), tmp_path_factory.mktemp("run") / "run", contract=contract,
        epochs=0, full_range=True, cache=False, benchmark=False, quiet=True,
    )  # fmt: skip


def test_a_full_range_run_says_first_where_it_is_wrong(run: CompressResult) -> None:
    results = run.results
    assert not results.parity.portable
    lines = shown(results)
    assert lines[0].startswith("portable: no, wrong on x86 processors without VNNI")
    assert max(map(len, lines)) <= 100
    lost = results.without_vnni
    assert lost is not None
    assert lost.crops == 8
    code = [line.strip() for line in lines if line.startswith("    ")]
    assert code == sentences.exact_sums(results)
    page = run.run.report.read_text()
    assert page.index("portable: no") < page.index("<h2>Use it</h2>")
    assert "x64quantprecision" in page
    metrics = json.loads(run.run.metrics.read_text())
    assert metrics["portable"] is False
    assert metrics["without_vnni"]["cosines"] == list(lost.cosines)
    assert metrics["processor"] == results.processor


def test_the_code_opens_the_file_rightly(
    run: CompressResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.run.path)
    names: dict[str, object] = {}
    code = "import onnxruntime\n" + "\n".join(sentences.exact_sums(run.results))
    exec(code, names)
    session = names["session"]
    options = session.get_session_options()  # type: ignore[attr-defined]
    assert options.get_session_config_entry("session.x64quantprecision") == "1"


@pytest.mark.parametrize(("measured", "emulated"), [(False, "without"), (True, "with")])
def test_the_loss_in_numbers(run: CompressResult, measured: bool, emulated: str) -> None:
    found = dataclasses.replace(FOUND, measured_without=measured)
    results = dataclasses.replace(run.results, without_vnni=found)
    text = " ".join(sentences.portability(results))
    assert WITHOUT_VNNI in text
    assert "512 held-out faces: cosine to the teacher 0.9953 with VNNI, 0.9451 without" in text
    assert "TAR@FAR=0.001 84.07 % (teacher), 83.43 % with VNNI, 72.30 % without" in text
    assert f"The numbers {emulated} VNNI are emulated here." in text
    few = dataclasses.replace(FOUND, far=None, tars=None)
    text = " ".join(sentences.portability(dataclasses.replace(results, without_vnni=few)))
    assert "TAR" not in text


def test_a_portable_run_says_so_in_one_line(run: CompressResult) -> None:
    parity = dataclasses.replace(run.results.parity, overflowing=(), without_vnni=1.0)
    results = dataclasses.replace(run.results, parity=parity, without_vnni=None, speed=speed())
    lines = shown(results)
    assert lines[0].startswith("portable: yes, the same integers on every processor")
    assert any(line.startswith("teacher against student") for line in lines)
    assert max(map(len, lines)) <= 100
    assert not any("x64quantprecision" in line for line in lines)
    assert "X 1, x86 with VNNI" in lines
    assert Path(run.run.onnx).name in "\n".join(lines)
    recipe = {**results.recipe, "bits": "float"}
    assert sentences.portability(dataclasses.replace(results, recipe=recipe)) == []


def test_little_speed_is_said() -> None:
    for ratios, said in (
        ((1.5, 1.4), ""),
        ((1.05, 1.4), "1.05 times at batch 1 as fast as the best float form"),
        ((1.05, 0.97), "1.05 times at batch 1 and 0.97 times at batch 16 as fast"),
    ):
        text = " ".join(sentences.gains(speed("x86 with VNNI", *ratios), integers=True))
        assert ("Little is gained" in text) == bool(said)
        assert said in text
        assert "without VNNI gain less from integers" in text
        assert "efq benchmark TEACHER --against student.onnx" in text


def test_processors_of_other_kinds() -> None:
    (without,) = sentences.gains(speed("x86 without VNNI"), integers=True)
    assert without.startswith("This processor has no VNNI")
    (arm,) = sentences.gains(speed("ARM"), integers=True)
    assert "measure there" in arm
    assert sentences.gains(speed(), integers=False) == []
