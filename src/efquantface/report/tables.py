"""Tables of the verbs that make no report."""

from __future__ import annotations

from rich.table import Table

from efquantface.embedding.benchmark import Timing
from efquantface.evaluation.result import ProtocolResult
from efquantface.report.results import formatted, formatted_interval, percent


def evaluation_table(results: list[ProtocolResult], model: str, against: str | None) -> Table:
    """Metrics of one model, or of two with the loss between them."""
    table = Table(title="verification, shares in percent", title_justify="left")
    table.add_column("")
    for name in (model, against):
        if name is not None:
            table.add_column(name.rsplit("/", 1)[-1], justify="right")
            table.add_column("95 %", justify="right")
    if against is not None:
        table.add_column("loss", justify="right")
    table.add_column("note")
    for result in results:
        table.add_section()
        width = 1 + (2 if against is None else 5)
        table.add_row(
            f"[bold]{result.protocol}[/bold]",
            *[""] * (width - 1),
            f"{result.counted}; {result.flags}",
        )
        for metric in result.metrics:
            cells = [formatted(metric, metric.teacher), formatted_interval(metric.teacher_interval)]
            if against is not None:
                cells += [
                    formatted(metric, metric.student),
                    formatted_interval(metric.student_interval),
                    "" if metric.loss is None else percent(metric.loss),
                ]
            table.add_row(metric.name, *cells, metric.note)
    return table


def timing_table(timings: list[Timing], threads: int) -> Table:
    """Milliseconds, faces a second and ratios to the first model."""
    table = Table(title=f"speed, {threads} thread(s), models timed in turns", title_justify="left")
    for column in ("batch", "model", "ms", "quartiles", "faces/s", "times as fast as the first"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for t in timings:
        table.add_row(
            str(t.batch),
            t.name,
            f"{t.median_ms:.2f}",
            f"{t.low_ms:.2f} to {t.high_ms:.2f}",
            f"{t.faces_a_second:.0f}",
            f"{t.ratio:.2f}",
        )
    return table
