"""Sentences around tables: whether a file is portable, and where it is hardly faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from efquantface.embedding.benchmark import Speed
from efquantface.export.portability import EXACT_SUMS, wrong_without_vnni
from efquantface.recipe import FLOAT
from efquantface.report.results import BEST_FLOAT, FILE, STUDENT, Results, percent
from efquantface.runtime.processor import WITHOUT_VNNI

if TYPE_CHECKING:  # tables of evaluations need no PyTorch
    from efquantface.export.without_vnni import WithoutVnni

_LITTLE = 1.2  # a student below so many times the speed of the best float form gains little


def portability(results: Results) -> list[str]:
    """Whether the file is portable, and what it loses where it is not; empty for float students."""
    if results.recipe["bits"] == FLOAT:
        return []
    if results.parity.portable:
        return [f"portable: yes, {results.parity.portability}"]
    wrong = wrong_without_vnni(results.parity.overflowing)
    cosine = f"mean cosine {results.parity.without_vnni:.4f} to the right ones"
    said = [f"portable: no, {wrong} ({cosine})."]
    if results.without_vnni is not None:
        said.append(_lost(results.without_vnni))
    return [*said, "Opened with these lines, it is right there, too:"]


def exact_sums(results: Results) -> list[str]:
    """Three lines of Python that open a file that is not portable correctly; empty for others."""
    if results.parity.portable:
        return []
    return [line.replace("FILE", FILE) for line in EXACT_SUMS]


def target(results: Results) -> list[str]:
    """The predicted and the measured loss of the chosen way; empty without a target."""
    choice = results.choice
    if choice is None:
        return []
    said = [f"Predicted loss of {choice.chosen.way.name}: {choice.chosen.loss:.2f} points."]
    for protocol in results.protocols:
        for metric in protocol.metrics:
            if metric.name == f"TAR@FAR={choice.far:g}" and metric.loss is not None:
                said.append(f"Measured on {protocol.protocol}: {percent(metric.loss)} points.")
    return said


def _lost(found: WithoutVnni) -> str:
    """A sentence with the numbers with and without VNNI, and which of them are emulated."""
    with_it, without = found.cosines
    said = (
        f"On {found.crops:,} held-out faces: cosine to the teacher {with_it:.4f} with VNNI, "
        f"{without:.4f} without"
    )
    if found.far is not None and found.tars is not None:
        teacher, *tars = (percent(tar) for tar in found.tars)
        said += (
            f"; TAR@FAR={found.far:g} {teacher} % (teacher), {tars[0]} % with VNNI, "
            f"{tars[1]} % without"
        )
    other = "with" if found.measured_without else "without"
    return f"{said}. The numbers {other} VNNI are emulated here."


def gains(speed: Speed, *, integers: bool) -> list[str]:
    """Sentences on processors where the student is hardly faster than the best float form.

    Args:
        speed: of teacher, best float form and student.
        integers: whether the student is quantized.
    """
    ratios = {batch: speed.at(batch)[STUDENT].ratios[BEST_FLOAT] for batch in speed.batches}
    little = [f"{r:.2f} times at batch {b}" for b, r in ratios.items() if r < _LITTLE]
    said = []
    if little:
        said.append(
            f"Little is gained on processors like this one. The student is {' and '.join(little)} as "
            "fast as the best float form. efq export --float writes that form, and it loses nothing."
        )
    if integers and speed.kind == WITHOUT_VNNI:
        said.append("This processor has no VNNI. With VNNI, integers gain more.")
    elif integers:
        said.append(
            "x86 processors without VNNI gain less from integers; measure there: "
            f"efq benchmark TEACHER --against {FILE}"
        )
    return said
