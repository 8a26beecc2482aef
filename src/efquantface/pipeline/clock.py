"""The time that students take on this machine: they are exported as at the end of a run, and timed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from efquantface.errors import RecipeError
from efquantface.export.onnx_writer import to_onnx
from efquantface.files import write_text
from efquantface.graph.graph import specs_of
from efquantface.graph.model import FaceModel
from efquantface.pipeline.run_dir import Run
from efquantface.quantize.placement import quantize
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.sessions import onnxruntime_session, run_onnxruntime

_SECONDS = 2.0  # for timing a network, within ``_ROUNDS``
_ROUNDS = (20, 150)
_TURN_SECONDS = 0.001
_UNDISTURBED = 0.1  # share of the turns
_SESSIONS = 3  # of one file; some are slower by several percent

Call = Callable[[], object]
Measure = Callable[[FaceModel], float]


class Clock:
    """Times a float model's student: ms for one crop on one thread in ONNX Runtime.

    The first model is timed alone. Later models run in turns with it, and the ratio of both times
    counts: other load on the machine slows both. Turns are short, because other processes interrupt for
    milliseconds. The 10th percentile of the turns counts. Each model has several sessions, since a
    session's time depends on where its memory lies. Ranges are not searched, since no time depends on
    them.

    A network of the same operators and shapes is timed once. So with the same ``timings`` a choice by
    time is the same on any machine.
    """

    def __init__(self, scheme: Scheme | None, timings: Timings | None = None) -> None:
        """Start without a first model.

        Args:
            scheme: of the students; None: they stay float.
            timings: what was measured earlier.
        """
        self.scheme, self.timings = scheme, timings or Timings()
        self.first: tuple[FaceModel, float] | None = None
        self.opened: list[Call] = []

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
            self.opened = self._open(model)
            return _ms([self.opened])[0]
        first, ms = self.first
        self.opened = self.opened or self._open(first)
        before, after = _ms([self.opened, self._open(model)])
        return ms * after / before

    def _open(self, model: FaceModel) -> list[Call]:
        student = model if self.scheme is None else quantize(model, self.scheme)
        data = to_onnx(student).SerializeToString()
        c = model.contract
        crop = c.normalize(np.full((1, c.height, c.width, 3), 128, np.uint8))

        def call() -> Call:
            run = run_onnxruntime(onnxruntime_session(data, 1, "cpu"))
            return lambda: run(crop)

        return [call() for _ in range(_SESSIONS)]


def _ms(models: list[list[Call]]) -> list[float]:
    """Ms of each model's call. The sessions of all models run in turns."""
    calls = [call for model in models for call in model]
    repeats, a_round = [], 0.0
    for call in calls:
        call()
        seconds = _seconds(call, 1)
        repeats.append(max(1, int(_TURN_SECONDS / seconds)))
        a_round += (1 + repeats[-1]) * seconds
    rounds = int(np.clip(_SECONDS / a_round, *_ROUNDS))
    times = np.empty((rounds, len(calls)))
    for turn in range(rounds):
        for column, call in enumerate(calls):
            call()  # loads its weights into the processor's cache
            times[turn, column] = 1000 * _seconds(call, repeats[column])
    undisturbed = np.quantile(times, _UNDISTURBED, axis=0)
    return [float(np.median(part)) for part in np.split(undisturbed, len(models))]


def _seconds(call: Call, times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


class Timings:
    """Ms by network, on which a choice by time is based; kept in a file if one is given."""

    def __init__(self, path: Path | None = None, known: dict[str, float] | None = None) -> None:
        """``path`` is written with every new timing; ``known`` are the timings to start with."""
        self.path, self.known = path, dict(known or {})

    def get(self, key: str) -> float | None:
        """Ms of a network; None if it was not timed."""
        return self.known.get(key)

    def add(self, key: str, ms: float) -> None:
        """Keep a timing, and write the file.

        Raises:
            WriteError: the file cannot be written.
        """
        self.known[key] = ms
        if self.path is not None:
            write_text(self.path, json.dumps(self.known, indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> dict[str, float]:
        """Read the timings of another run: ms by network.

        Raises:
            RecipeError: the file cannot be read, or holds no timings.
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


def timings_of(run: Run) -> Timings:
    """The run's timings: known are those of a resumed run, and of the run that the recipe names.

    Raises:
        RecipeError: they cannot be read.
    """
    known: dict[str, float] = {}
    if run.recipe.timings is not None:
        known |= Timings.read(Path(run.recipe.timings))
    if run.resume and run.directory.timings.is_file():
        known |= Timings.read(run.directory.timings)
    return Timings(run.directory.timings, known)


def _positive(ms: object) -> float:
    if isinstance(ms, bool) or not isinstance(ms, int | float) or not 0 < ms < 1e9:
        raise ValueError(ms)
    return float(ms)


def _key(model: FaceModel, scheme: Scheme | None) -> str:
    """Digest of a network's operators and shapes, the scheme and the crop size."""
    c = model.contract
    what = [
        [asdict(spec) for spec in specs_of(model.graph)],
        None if scheme is None else asdict(scheme),
        [c.height, c.width],
    ]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]
