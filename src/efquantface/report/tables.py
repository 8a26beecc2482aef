"""Tables for the terminal, 100 columns wide. All numbers and notes are in the JSON and the report."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from efquantface.embedding.benchmark import Speed
from efquantface.evaluation.result import Metric, ProtocolResult
from efquantface.recipe import FLOAT
from efquantface.report import sentences
from efquantface.report.results import (
    BEST_FLOAT,
    TEACHER,
    Results,
    formatted,
    formatted_interval,
    percent,
)
from efquantface.text import plain

_NAME = 41  # characters of the first column; longer names are folded between words
_VALUE, _INTERVAL, _NOTE, _RATIO = 8, 24, 22, 13
PERCENT = "shares in percent, with 95 % intervals"


def terminal_table(results: Results) -> Group:
    """Portability, the verdict, and teacher and student side by side: size, speed, protocols."""
    verdict = results.verdict
    said = [verdict.headline, verdict.threshold, verdict.galleries]
    head = [Text(line) for line in sentences.portability(results)]
    head += [Text(f"    {line}") for line in sentences.exact_sums(results)]
    head += [Text(line) for line in said if line]
    table = _table(results.title or "teacher against student", "ratio")
    sizes = results.sizes
    _row(
        table,
        "file size, MB",
        f"{sizes.teacher_bytes / 1e6:.2f}",
        f"{sizes.student_bytes / 1e6:.2f}",
        f"{1 / sizes.ratio:.1f}x smaller",
    )
    parts: list[RenderableType] = [*head, table]
    if results.speed is not None:
        quantized = results.recipe["bits"] != FLOAT
        parts.append(speed_table(results.speed, (TEACHER, BEST_FLOAT)))
        parts += [Text(line) for line in sentences.gains(results.speed, integers=quantized)]
    return Group(*parts, *_protocols(results.protocols, two=True))


def evaluation_table(
    results: Sequence[ProtocolResult], model: str, against: str | None = None
) -> Group:
    """Metrics of one model, or of teacher and student with the loss."""
    names = [f"teacher {_last(model)}, student {_last(against)}" if against else _last(model)]
    return Group(
        Text(plain(f"{names[0]}: {PERCENT}")), *_protocols(results, two=against is not None)
    )


def speed_table(speed: Speed, against: Sequence[str] = ()) -> Group:
    """Milliseconds, faces per second, ratios, the processor and its load.

    Args:
        speed: of one or more models.
        against: the models of the ratios' denominators; the first model where none is given.
    """
    threads = "one thread" if speed.threads == 1 else f"{speed.threads} threads"
    title = f"speed, {threads}, models timed in turns"
    table = Table(title=title, title_justify="left")
    table.add_column("batch", justify="right")
    table.add_column("model", overflow="fold", max_width=36)
    for column in ("ms", "quartiles", "faces/s"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in against or ("first",):
        table.add_column(Text(plain(f"times as fast as the {name}")), justify="right", width=_RATIO)
    for t in speed.timings:
        ratios = [t.ratios[name] for name in against] or [t.ratio]
        _row(
            table,
            str(t.batch),
            t.name,
            f"{t.median_ms:.2f}",
            f"{t.low_ms:.2f} to {t.high_ms:.2f}",
            f"{t.faces_a_second:.0f}",
            *(f"{ratio:.2f}" for ratio in ratios),
        )
    return Group(table, Text(speed.processor), Text(speed.load.describe()))


def _protocols(results: Sequence[ProtocolResult], *, two: bool) -> list[Table | Text]:
    parts: list[Table | Text] = []
    for result in results:
        title = f"{result.protocol}: {result.counted}; {result.flags}"
        table = _table(title, "loss") if two else _single(title)
        for metric in result.metrics:
            _row(table, metric.name, *(_compared(metric) if two else _alone(metric)))
        parts.append(table)
        parts += [Text(plain(why)) for why in result.left_out]
    return parts


def _compared(metric: Metric) -> tuple[str, str, str]:
    loss = "" if metric.loss is None else percent(metric.loss)
    interval = formatted_interval(metric.loss_interval)
    return (
        formatted(metric, metric.teacher),
        formatted(metric, metric.student),
        f"{loss} {interval}".strip(),
    )


def _alone(metric: Metric) -> tuple[str, str, str]:
    interval = formatted_interval(metric.teacher_interval)
    return formatted(metric, metric.teacher), interval, metric.note


def _table(title: str, last: str) -> Table:
    table = Table(title=Text(plain(title)), title_justify="left")
    table.add_column(_blank(_NAME), max_width=_NAME)
    for name, width in (("teacher", _VALUE), ("student", _VALUE), (last, _INTERVAL)):
        table.add_column(name, justify="right", min_width=width, no_wrap=True)
    return table


def _single(title: str) -> Table:
    table = Table(title=Text(plain(title)), title_justify="left")
    table.add_column(_blank(_NAME - 8), max_width=_NAME - 8)
    table.add_column("model", justify="right", min_width=_VALUE, no_wrap=True)
    table.add_column("95 %", justify="right", min_width=16, no_wrap=True)
    table.add_column("note", max_width=_NOTE + 6, overflow="fold")
    return table


def _blank(width: int) -> Text:
    """An empty heading that gives its column the same width in every table, if there is room."""
    return Text(" " * width, no_wrap=True, overflow="crop")


def _row(table: Table, *cells: str) -> None:
    """Add a row of plain text; markup in it is not interpreted."""
    table.add_row(*(Text(plain(cell)) for cell in cells))


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]
