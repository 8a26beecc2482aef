"""Figures of a report, drawn as SVG text."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from markupsafe import escape
from matplotlib.axes import Axes

from efquantface.distill.settings import History
from efquantface.evaluation.result import ProtocolResult
from efquantface.prune.prune import Pruned
from efquantface.quantize.mixed import CHOICES, LayerChoice
from efquantface.text import plain

TEACHER, STUDENT, QUIET = "#6c7a84", "#0b8ca3", "#adb5bd"  # readable on white and on black
_INK = "#010203"  # of text and axes; the page replaces it
_INKED: dict[Any, str] = dict.fromkeys(
    ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
)
_COLOURS = {"teacher": TEACHER, "student": STUDENT}


def roc(protocol: ProtocolResult) -> str:
    """TAR against FAR (logarithmic) of teacher and student."""

    def draw(axes: Axes) -> None:
        for name, (far, tar) in protocol.curves.roc.items():
            style = "--" if name == "teacher" else "-"
            axes.plot(far, tar, style, color=_COLOURS[name], label=name, linewidth=1.8)
        axes.set_xscale("log")
        lowest = min(min(tar) for _, tar in protocol.curves.roc.values())
        axes.set_ylim(max(0.0, lowest - 0.02), 1.002)
        axes.set_xlabel("FAR")
        axes.set_ylabel("TAR")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, loc="lower right")

    return _figure(draw, f"ROC of {protocol.protocol}")


def histograms(protocol: ProtocolResult) -> str:
    """Histograms of cosines of genuine and impostor pairs: student filled, teacher as a line."""

    def draw(axes: Axes) -> None:
        edges = [-1 + 2 * i / 100 for i in range(101)]
        for name in protocol.curves.genuine:
            for kind, counts in (
                ("impostor", protocol.curves.impostor[name]),
                ("genuine", protocol.curves.genuine[name]),
            ):
                total = max(sum(counts), 1)
                shares = [c / total for c in counts]
                colour = QUIET if kind == "impostor" else STUDENT
                if name == "student":
                    axes.stairs(shares, edges, fill=True, color=colour, alpha=0.55)
                else:
                    axes.stairs(shares, edges, color=_INK, linewidth=1.1)
        axes.set_xlabel("cosine similarity (student filled, teacher as line)")
        axes.set_ylabel("share of pairs")
        axes.set_xlim(-0.6, 1)

    return _figure(draw, f"genuine and impostor similarities, {protocol.protocol}")


def training(history: History) -> str:
    """Training and held-out loss over the steps."""

    def draw(axes: Axes) -> None:
        if history.steps:
            steps, losses = zip(*history.steps, strict=True)
            axes.plot(steps, losses, color=QUIET, linewidth=1, label="training batch")
        steps, losses = zip(*history.held_out, strict=True)
        axes.plot(steps, losses, "o-", color=STUDENT, linewidth=1.8, label="held out")
        axes.axvline(history.best_step, color=TEACHER, linestyle=":", label="kept")
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("distillation loss")
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False)

    return _figure(draw, "training")


def pruned(result: Pruned) -> str:
    """Output channels of each layer, of the teacher and of what pruning left."""

    def draw(axes: Axes) -> None:
        places = range(len(result.layers))
        axes.bar(places, [n for _, n, _ in result.layers], color=QUIET, width=0.8, label="teacher")
        axes.bar(places, [n for _, _, n in result.layers], color=STUDENT, width=0.8, label="left")
        axes.set_xlabel(f"layers in order ({len(result.layers)})")
        axes.set_ylabel("output channels")
        axes.grid(alpha=0.3, axis="y")
        axes.legend(frameon=False)

    return _figure(draw, "channels", width=8.4)


def layers(errors: list[tuple[str, float]]) -> str:
    """Relative error of each layer's output, student against teacher, first layer on the left."""

    def draw(axes: Axes) -> None:
        values = [value for _, value in errors]
        axes.bar(range(len(values)), values, color=STUDENT, width=0.8)
        axes.set_yscale("log")
        axes.set_xlabel(f"quantized tensors in order ({len(values)})")
        axes.set_ylabel("relative squared error")
        axes.grid(alpha=0.3, axis="y")

    return _figure(draw, "per-layer error", width=8.4)


def allocation(choices: list[LayerChoice]) -> str:
    """Bits that a budget gave each layer; a bar's width is the layer's number of weights."""

    def draw(axes: Axes) -> None:
        left = 0
        shades = dict(zip(CHOICES, ("#c92a2a", "#e8a33d", STUDENT), strict=True))
        for choice in choices:
            axes.bar(
                left,
                choice.bits,
                width=choice.weights,
                align="edge",
                color=shades[choice.bits],
                edgecolor="white",
                linewidth=0.3,
            )
            left += choice.weights
        axes.set_yticks([0, *CHOICES])
        axes.set_xlim(0, left)
        axes.set_xlabel("weights, layer after layer (a bar's width is its layer's size)")
        axes.set_ylabel("bits")

    return _figure(draw, "bits per layer", width=8.4)


def _figure(draw: Callable[[Axes], None], title: str, width: float = 4.6) -> str:
    with plt.rc_context(_INKED):
        figure, axes = plt.subplots(figsize=(width, 3.2), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    stream = io.StringIO()
    figure.savefig(
        stream, format="svg", metadata={"Date": None, "Title": plain(title)}, transparent=True
    )
    plt.close(figure)
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")  # also for dark pages
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(plain(title))}" ', 1)
