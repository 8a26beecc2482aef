"""All results of a run in one place; metrics.json, the table and the report are made from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efquantface.contract import FaceContract
from efquantface.embedding.benchmark import Speed
from efquantface.evaluation.result import Evaluation, Metric
from efquantface.report.provenance import Provenance
from efquantface.report.verdict import Verdict, judge
from efquantface.runtime.processor import named

if TYPE_CHECKING:  # tables of evaluations need no PyTorch
    from efquantface.distill.settings import History
    from efquantface.export.parity import Parity
    from efquantface.export.without_vnni import WithoutVnni
    from efquantface.graph.model import FaceModel
    from efquantface.prune.goal import Latency
    from efquantface.prune.prune import Pruned
    from efquantface.quantize.mixed import LayerChoice
    from efquantface.target.choice import Choice

TEACHER, BEST_FLOAT, STUDENT = "teacher", "best float form", "student"  # what is timed
FILE = "student.onnx"


@dataclass(frozen=True)
class Sizes:
    """File sizes in bytes, and the teacher's number of parameters."""

    teacher_bytes: int
    student_bytes: int
    parameters: int

    @classmethod
    def measure(cls, teacher: FaceModel, student: FaceModel, exported: Path) -> Sizes:
        """Measure the files; a teacher that is no ONNX file counts as its float ONNX form."""
        from efquantface.export.onnx_writer import to_onnx

        if teacher.source is not None and teacher.source.suffix == ".onnx":
            size = teacher.source.stat().st_size
        else:
            size = to_onnx(teacher).ByteSize()
        return cls(size, exported.stat().st_size, teacher.parameters)

    @property
    def ratio(self) -> float:
        """The student's size divided by the teacher's."""
        return self.student_bytes / self.teacher_bytes


@dataclass(frozen=True, repr=False)
class Results:
    """All results of a run.

    Attributes:
        recipe: all settings, as plain data.
        contract: the crops that teacher and student expect.
        teacher: the name of its file.
        sizes: of teacher and student.
        protocols: one result per protocol.
        lengths: by set, how the student's embedding lengths compare with the teacher's.
        history: losses of the training.
        parity: the exported file compared with the student in PyTorch.
        layer_errors: (name, relative squared error) of each quantized tensor.
        images_used: for training, or for setting ranges where nothing was trained.
        skipped: (name, reason) of images that could not be used.
        without_vnni: loss of a student that is not portable, on processors without VNNI; None for
        others. speed: of teacher, its best float form and student; None without a benchmark. choices:
        the bits that a budget gave each layer. choice: the ways that were tried for a target; None
        without one. pruned: the channels removed; None without pruning. latency: the asked and the
        measured latency; None where none was asked for. reconstructed: whether weights were rounded
        against the teacher. title, caveat: at the head of table and report. processor: name and kind of
        the processor of all measurements. teacher_check: the teacher's graph compared with the user's
        own file; None where that cannot run. provenance: what made the student; None outside of a run.

    Example:
        >>> results
        Results(SmallFaceNet to w8a8: ...x smaller, held-out all pairs: cosine to teacher ...)
        >>> results.records()[-1]["metric"]
        'cosine to teacher'
    """

    recipe: dict[str, Any]
    contract: FaceContract
    teacher: str
    sizes: Sizes
    protocols: Evaluation
    lengths: dict[str, dict[str, float]]
    history: History
    parity: Parity
    layer_errors: list[tuple[str, float]] = field(default_factory=list)
    images_used: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    without_vnni: WithoutVnni | None = None
    speed: Speed | None = None
    choices: list[LayerChoice] = field(default_factory=list)
    choice: Choice | None = None
    pruned: Pruned | None = None
    latency: Latency | None = None
    reconstructed: bool = False
    title: str = ""
    caveat: str = ""
    processor: str = field(default_factory=named)
    teacher_check: dict[str, Any] | None = None
    provenance: Provenance | None = None

    def __repr__(self) -> str:
        """One line: what was made of what, how small it is, and each protocol's first metric."""
        found = repr(self.protocols)[len("Evaluation(") : -1]
        size = f"{1 / self.sizes.ratio:.1f}x smaller"
        return f"Results({self.teacher} to {self.recipe['bits']}: {size}, {found})"

    @property
    def verdict(self) -> Verdict:
        """May the student replace the teacher, by a stated rule."""
        return judge(self.protocols)

    def records(self) -> list[dict[str, Any]]:
        """One flat dictionary per metric, as :meth:`Evaluation.records`."""
        return self.protocols.records()

    def to_frame(self) -> Any:
        """:meth:`records` as a ``pandas.DataFrame``, as :meth:`Evaluation.to_frame`."""
        return self.protocols.to_frame()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json."""
        return {
            "teacher": self.teacher,
            "verdict": self.verdict.as_dict(),
            "provenance": None if self.provenance is None else asdict(self.provenance),
            "contract": asdict(self.contract),
            "sizes": {**asdict(self.sizes), "ratio": self.sizes.ratio},
            "protocols": [p.as_dict() for p in self.protocols],
            "embedding_lengths": self.lengths,
            "history": asdict(self.history),
            "parity": self.parity.as_dict(),
            "teacher_check": self.teacher_check,
            "images_used": self.images_used,
            "skipped_faces": [list(item) for item in self.skipped],
            "bits_chosen": {c.name: c.bits for c in self.choices},
            "choice": None if self.choice is None else self.choice.as_dict(),
            "portable": self.parity.portable,
            "without_vnni": None if self.without_vnni is None else asdict(self.without_vnni),
            "pruned": None if self.pruned is None else self.pruned.as_dict(),
            "latency": None if self.latency is None else asdict(self.latency),
            "layer_errors": dict(self.layer_errors),
            "processor": self.processor,
            "speed": [] if self.speed is None else self.speed.rows(),
            "speed_conditions": None if self.speed is None else self.speed.conditions(),
        }


def percent(value: float) -> str:
    """A share as a percentage with two decimals; zero has no sign."""
    return f"{round(100 * value, 2) + 0.0:.2f}"


def formatted(metric: Metric, value: float | None) -> str:
    """A metric's value as text: shares in percent; cosines, lengths and ratios as numbers."""
    if value is None:
        return ""
    if metric.name.startswith(("cosine", "threshold")):
        return f"{value:.4f}"
    if metric.name.startswith(("length", "ratio")):
        return f"{value:.2f}"
    return percent(value)


def formatted_interval(interval: tuple[float, float] | None) -> str:
    """A 95 % interval in percent; empty for None."""
    return "" if interval is None else f"[{percent(interval[0])}, {percent(interval[1])}]"
