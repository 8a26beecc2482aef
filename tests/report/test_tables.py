"""Tables in a terminal: nothing cut, no number broken, markup of a user's names left alone."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from conftest import make_faces
from efquantface.embedding.benchmark import Speed, Timing
from efquantface.evaluation.items import Embedded, Options
from efquantface.evaluation.result import Curves, Evaluation, Metric, ProtocolResult
from efquantface.evaluation.run import score_item
from efquantface.evaluation.sets import EvalSet, Pairs
from efquantface.report.results import formatted, formatted_interval, percent
from efquantface.report.tables import evaluation_table, speed_table
from efquantface.runtime.busy import Load

RNG = np.random.default_rng(7)
TRICKY = "[/red] my [bold]set[/bold] :smile:"


def rendered(table: object, width: int = 100) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table)
    return stream.getvalue().splitlines()


def speed(*timings: Timing, threads: int = 1) -> Speed:
    processor = "AMD EPYC, x86 with VNNI (avx2, fma, avx512f, avx512bw, avx512_vnni, avx512_bf16)"
    return Speed(list(timings), threads, processor, "x86 with VNNI", Load(64, 51.25, 0.02, 0.43))


def results(models: int) -> Evaluation:
    """Pairs and people, every kind of metric, from embeddings that lose a little."""
    faces = make_faces(12, 4)
    a = np.repeat(np.arange(48), 4)
    b = (a + np.tile([1, 5, 9, 13], 48)) % 48
    same = faces.identities[a] == faces.identities[b]
    item = EvalSet(TRICKY, faces, Pairs(a, b, same, np.arange(len(a)) % 10), True)
    base = np.repeat(RNG.normal(size=(12, 16)), 4, axis=0)
    rows = [base + 0.5 * RNG.normal(size=base.shape) for _ in range(models)]
    groups = {name: "left" if i < 6 else "right" for i, name in enumerate(faces.identity_names)}
    options = Options(threshold=0.25, arcface=True, groups=groups)
    return Evaluation(score_item(item, [Embedded(r.astype(np.float32)) for r in rows], options))


@pytest.mark.parametrize("width", [80, 100])
def test_teacher_and_student_fit(width: int) -> None:
    found = results(2)
    lines = rendered(evaluation_table(found, "a/teacher.onnx", "b/student.onnx"), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    assert "teacher teacher.onnx, student student.onnx" in text
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]
    for result in found:
        for metric in result.metrics:
            loss = "" if metric.loss is None else percent(metric.loss)
            numbers = [
                formatted(metric, metric.teacher),
                formatted(metric, metric.student),
                f"{loss} {formatted_interval(metric.loss_interval)}".strip(),
            ]
            assert any(row[1:] == numbers for row in rows), (metric.name, numbers)


def test_one_model_fits() -> None:
    found = results(1)
    lines = rendered(evaluation_table(found, "a/model.onnx"))
    assert max(map(len, lines)) <= 100
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]
    assert ["", "model", "95 %", "note"] in rows
    for result in found:
        for metric in result.metrics:
            numbers = [
                formatted(metric, metric.teacher),
                formatted_interval(metric.teacher_interval),
            ]
            assert any(row[1:3] == numbers for row in rows), metric.name


def test_a_students_own_number_stands_in_its_column() -> None:
    rows = [re.split("[│┃]", line) for line in rendered(evaluation_table(results(2), "a", "b"))]
    head = next(row for row in rows if "teacher" in [c.strip() for c in row])
    cosine = next(row for row in rows if len(row) > 2 and row[1].strip() == "cosine to teacher")
    place = [c.strip() for c in head].index("student")
    assert re.fullmatch(r"0\.\d{4}", cosine[place].strip())
    assert cosine[place - 1].strip() == ""


def test_names_are_never_markup() -> None:
    text = " ".join(rendered(evaluation_table(results(2), "[x].onnx", "[bold]y.onnx")))
    assert f"{TRICKY} pairs" in re.sub(r"\s+", " ", text)
    assert "[x].onnx" in text
    assert "[bold]y.onnx" in text
    timing = Timing("[/bold] my model", 1, 2.0, 1.9, 2.1, 1.0)
    assert "[/bold] my model" in "\n".join(rendered(speed_table(speed(timing))))


def test_what_is_missing_is_explained() -> None:
    text = "\n".join(rendered(evaluation_table(results(2), "a", "b")))
    assert "TAR@FAR=0.01 and below left out: needs 300 impostor pairs" in text.replace("\n", " ")


def test_long_file_names_keep_the_numbers_whole() -> None:
    name = "a_very_long_file_name_" * 5 + ".onnx"
    timing = Timing(name, 16, 1234.56, 1200.01, 1300.99, 12.34)
    lines = rendered(speed_table(speed(timing, threads=2)))
    assert max(map(len, lines)) <= 100
    for number in ("1234.56", "1200.01 to 1300.99", "12.34"):
        assert any(number in line for line in lines), number


def test_a_protocol_without_metrics() -> None:
    empty = ProtocolResult("x", {"genuine": 0, "impostor": 0}, "", [], Curves(), [], ["none here"])
    assert "none here" in "\n".join(rendered(evaluation_table([empty], "a")))
    metric = Metric("accuracy", 0.5)
    assert formatted(metric, None) == ""


def test_speed_says_on_what_it_was_measured() -> None:
    names = ("teacher", "best float form", "student")
    timings = [
        Timing(
            n, b, 1234.56, 1200.01, 1300.99, 1.5, dict(zip(names, (1.5, 1.25, 1.0), strict=True))
        )
        for b in (1, 16)
        for n in names
    ]
    lines = rendered(speed_table(speed(*timings), names[:2]))
    assert max(map(len, lines)) <= 100
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]
    for name in names:
        assert ["16", name, "1234.56", "1200.01 to 1300.99", "13", "1.50", "1.25"] in rows
    text = "\n".join(lines)
    assert "AMD EPYC, x86 with VNNI" in text
    assert "other processes took 43 % of the 64 cores" in text
    assert "ratios, not milliseconds" in text.replace("\n", "")
