"""What students take on this machine: exported as they would be delivered, and timed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from efquantface.embedding.benchmark import benchmark
from efquantface.embedding.embedder import Embedder
from efquantface.errors import RecipeError
from efquantface.export.onnx_writer import to_onnx
from efquantface.files import write_text
from efquantface.graph.graph import specs_of
from efquantface.graph.model import FaceModel
from efquantface.quantize.placement import quantize
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.sessions import onnxruntime_session, run_onnxruntime

_ROUNDS = 25
_SESSIONS = 3  # of one file: where its memory lies makes some slower by several percent

Measure = Callable[[FaceModel], float]


class Clock:
    """Ms of one crop on one thread, in ONNX Runtime, of a float model's student.

    The first model is timed by itself. Later ones are timed in turns with it and stand to it by
    the median of their ratios, so that other work on the machine slows both. Of several sessions of a
    file the fastest counts. Ranges are left as they are: no time depends on them.

    A network of the same operators and shapes is timed once: with the same ``timings`` a choice by time
    is the same again, on any machine.
    """

    def __init__(self, scheme: Scheme | None, timings: Timings | None = None) -> None:
        """``scheme``: None where students stay float; ``timings``: what was measured earlier."""
        self.scheme, self.timings = scheme, timings or Timings()
        self.first: tuple[FaceModel, float] | None = None
        self.opened: list[tuple[str, Embedder]] = []

    def __call__(self, model: FaceModel) -> float:
        key = _key(model, self.scheme)
        found = self.timings.get(key)
        if found is None:
            found = self._measure(model)
            self.timings.add(key, found)
        if self.first is None:
            self.first = model, found
        return found

    def _measure(self, model: FaceModel) -> float:
        if self.first is None:
            sessions = self._open(model)
            timings = benchmark(sessions, batches=(1,), rounds=2 * _ROUNDS)
            best = min(range(len(sessions)), key=lambda i: timings[i].median_ms)
            self.opened = [sessions[best]]
            return timings[best].median_ms
        first, ms = self.first
        if not self.opened:
            self.opened = self._open(first)[:1]
        timings = benchmark([*self.opened, *self._open(model)], batches=(1,), rounds=_ROUNDS)
        return ms / max(timing.ratio for timing in timings[1:])

    def _open(self, model: FaceModel) -> list[tuple[str, Embedder]]:
        student = model if self.scheme is None else quantize(model, self.scheme)
        data = to_onnx(student).SerializeToString()
        return [
            (
                f"student {number}",
                Embedder(
                    model.contract,
                    "student",
                    "onnxruntime",
                    run_onnxruntime(onnxruntime_session(data, 1, "cpu")),
                ),
            )
            for number in range(_SESSIONS)
        ]


class Timings:
    """Ms by network, in a file where one is given: what a choice by time was made of."""

    def __init__(self, path: Path | None = None, known: dict[str, float] | None = None) -> None:
        """``path`` is written to with every timing; ``known``: those to begin with."""
        self.path, self.known = path, dict(known or {})

    def get(self, key: str) -> float | None:
        """Ms of a network that was timed; None for others."""
        return self.known.get(key)

    def add(self, key: str, ms: float) -> None:
        """Remember, and write down."""
        self.known[key] = ms
        if self.path is not None:
            write_text(self.path, json.dumps(self.known, indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> dict[str, float]:
        """Timings of another run.

        Raises:
            RecipeError: no such file, or not one of timings.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return {str(key): _positive(ms) for key, ms in found.items()}
        except OSError as error:
            raise RecipeError(f"timings {path}: cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, AttributeError):
            raise RecipeError(
                f"timings {path}: is not a run's timings.json, the times of networks in ms"
            ) from None


def _positive(ms: object) -> float:
    if not isinstance(ms, int | float) or not 0 < ms < 1e9:
        raise ValueError(ms)
    return float(ms)


def _key(model: FaceModel, scheme: Scheme | None) -> str:
    """Of a network's operators and shapes, and the student's bits."""
    c = model.contract
    what = [
        [asdict(spec) for spec in specs_of(model.graph)],
        None if scheme is None else asdict(scheme),
        [c.height, c.width],
    ]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]
