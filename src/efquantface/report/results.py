"""All results of a run in one place: what metrics.json, the table and the report are made from."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from efquantface.contract import FaceContract
from efquantface.embedding.benchmark import Timing
from efquantface.evaluation.result import Metric, ProtocolResult

if TYPE_CHECKING:  # tables of evaluations need no PyTorch
    from efquantface.distill.settings import History
    from efquantface.export.parity import Parity
    from efquantface.graph.model import FaceModel
    from efquantface.prune.goal import Latency
    from efquantface.prune.prune import Pruned
    from efquantface.quantize.mixed import LayerChoice


@dataclass(frozen=True)
class Sizes:
    """File sizes in bytes and parameters; the teacher's is the user's file where it is ONNX."""

    teacher_bytes: int
    student_bytes: int
    parameters: int

    @classmethod
    def measure(cls, teacher: FaceModel, student: FaceModel, exported: Path) -> Sizes:
        """Measure; a teacher that is no ONNX file counts as its float ONNX form."""
        from efquantface.export.onnx_writer import write_onnx

        if teacher.source is not None and teacher.source.suffix == ".onnx":
            size = teacher.source.stat().st_size
        else:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "teacher.onnx"
                write_onnx(teacher, path)
                size = path.stat().st_size
        return cls(size, exported.stat().st_size, teacher.parameters)

    @property
    def ratio(self) -> float:
        """Student's size over teacher's."""
        return self.student_bytes / self.teacher_bytes


@dataclass
class Results:
    """Everything that a run found out."""

    recipe: dict[str, Any]
    contract: FaceContract
    teacher: str
    sizes: Sizes
    protocols: list[ProtocolResult]
    lengths: dict[str, dict[str, float]]
    history: History
    parity: Parity
    layer_errors: list[tuple[str, float]] = field(default_factory=list)
    images_used: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    choices: list[LayerChoice] = field(default_factory=list)
    saturation: str = ""
    pruned: Pruned | None = None
    latency: Latency | None = None
    reconstructed: bool = False
    title: str = ""
    caveat: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json."""
        return {
            "teacher": self.teacher,
            "contract": asdict(self.contract),
            "sizes": {**asdict(self.sizes), "ratio": self.sizes.ratio},
            "protocols": [p.as_dict() for p in self.protocols],
            "embedding_lengths": self.lengths,
            "history": asdict(self.history),
            "parity": self.parity.as_dict(),
            "images_used": self.images_used,
            "skipped_faces": [list(item) for item in self.skipped],
            "bits_chosen": {c.name: c.bits for c in self.choices},
            "saturation": self.saturation,
            "pruned": None if self.pruned is None else self.pruned.as_dict(),
            "latency": None if self.latency is None else asdict(self.latency),
            "layer_errors": dict(self.layer_errors),
            "speed": [{**vars(t), "faces_a_second": t.faces_a_second} for t in self.timings],
        }


def percent(value: float) -> str:
    """A share as a percentage with two decimals."""
    return f"{100 * value:.2f}"


def formatted(metric: Metric, value: float | None) -> str:
    """A metric's value as it is read: percentages; cosines, lengths and ratios as they are."""
    if value is None:
        return ""
    if metric.name.startswith(("cosine", "threshold")):
        return f"{value:.4f}"
    if metric.name.startswith(("length", "ratio")):
        return f"{value:.2f}"
    return percent(value)


def formatted_interval(interval: tuple[float, float] | None) -> str:
    """A 95 % interval in percent."""
    return "" if interval is None else f"[{percent(interval[0])}, {percent(interval[1])}]"


def speed_rows(timings: list[Timing]) -> list[tuple[str, dict[str, Timing]]]:
    """Timings grouped by batch: (label, timings by model)."""
    batches = sorted({t.batch for t in timings})
    return [
        (f"ms at batch {b}, one thread", {t.name: t for t in timings if t.batch == b})
        for b in batches
    ]


def terminal_table(results: Results) -> Table:
    """Teacher beside student, for the terminal."""
    table = Table(title=results.title or "teacher against student", title_justify="left")
    for column in ("", "teacher", "student", "loss or ratio"):
        table.add_column(column, justify="left" if not column else "right")
    sizes = results.sizes
    table.add_row(
        "file size, MB",
        f"{sizes.teacher_bytes / 1e6:.2f}",
        f"{sizes.student_bytes / 1e6:.2f}",
        f"{1 / sizes.ratio:.1f}x smaller",
    )
    for label, rows in speed_rows(results.timings):
        teacher, student = rows["teacher"], rows["student"]
        table.add_row(
            label,
            f"{teacher.median_ms:.2f}",
            f"{student.median_ms:.2f}",
            f"{student.ratio:.1f}x as fast",
        )
    for protocol in results.protocols:
        table.add_section()
        table.add_row(f"[bold]{protocol.protocol}[/bold]", "", "", protocol.counted)
        for metric in protocol.metrics:
            if metric.name.startswith("cosine") or metric.student is None:
                table.add_row(metric.name, "", formatted(metric, metric.teacher), "")
                continue
            loss = "" if metric.loss is None else percent(metric.loss)
            interval = formatted_interval(metric.loss_interval)
            table.add_row(
                metric.name,
                formatted(metric, metric.teacher),
                formatted(metric, metric.student),
                f"{loss} {interval}".strip(),
            )
    return table
