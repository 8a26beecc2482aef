"""Speed as ratios: several models, timed in turns in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from efquantface.embedding.embedder import Embedder
from efquantface.interfaces import Progress
from efquantface.runtime import processor
from efquantface.runtime.busy import Load, Watch
from efquantface.runtime.sessions import Float32

_WARMUP = 3
_MIN_SECONDS = 0.004  # of a timed round; shorter calls are repeated


@dataclass(frozen=True)
class Timing:
    """The speed of one model at one batch size.

    Attributes:
        name: of the model.
        batch: crops per call.
        median_ms, low_ms, high_ms: milliseconds per call over the rounds: median and quartiles.
        ratio: how many times as fast as the first model: the median over rounds of the first model's
        time
            divided by this model's.
        ratios: the same to every model, by name.
    """

    name: str
    batch: int
    median_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    ratios: dict[str, float] = field(default_factory=dict)

    @property
    def faces_a_second(self) -> float:
        """Crops per second at the median."""
        return self.batch * 1000 / self.median_ms


@dataclass(frozen=True)
class Speed:
    """Timings, and their conditions.

    Attributes:
        timings: one per model and batch size.
        threads: of the runtime.
        processor: its name, kind and instruction sets in words.
        kind: as :func:`efquantface.runtime.processor.kind` gives it.
        load: of the machine meanwhile.
    """

    timings: list[Timing]
    threads: int
    processor: str
    kind: str
    load: Load

    @property
    def batches(self) -> list[int]:
        """Batch sizes, ascending."""
        return sorted({t.batch for t in self.timings})

    def at(self, batch: int) -> dict[str, Timing]:
        """Timings of one batch size, by model."""
        return {t.name: t for t in self.timings if t.batch == batch}

    def rows(self) -> list[dict[str, Any]]:
        """Timings as plain data."""
        return [{**vars(t), "faces_a_second": t.faces_a_second} for t in self.timings]

    def conditions(self) -> dict[str, Any]:
        """Processor, threads and load, as plain data."""
        busy = {**asdict(self.load), "busy": self.load.busy}
        return {"processor": self.processor, "threads": self.threads, "load": busy}


def measure(
    models: Sequence[tuple[str, Embedder]],
    threads: int,
    *,
    batches: Sequence[int] = (1, 16),
    rounds: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> Speed:
    """:func:`benchmark` with its conditions; ``threads`` is what the models were opened with."""
    with Watch() as watch:
        timings = benchmark(models, batches=batches, rounds=rounds, seed=seed, progress=progress)
    return Speed(timings, threads, processor.in_words(), processor.kind(), watch.load)


def benchmark(
    models: Sequence[tuple[str, Embedder]],
    *,
    batches: Sequence[int] = (1, 16),
    rounds: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Timing]:
    """Time ``models`` in turns, so that other load on the machine slows all of them alike.

    Only the runtime's call is timed, on normalized input of random pixels. Ratios are of times in the
    same round.

    Args:
        models: names and models; ratios are to the first.
        batches: crops per call.
        rounds: in each, every model has its turn.
        seed: of the pixels.
        progress: called with (done, total).

    Returns:
        One timing per batch size and model.
    """
    rng = np.random.default_rng(seed)
    timings = []
    done, total = 0, len(batches) * (rounds + 1)
    for batch in batches:
        inputs = []
        for _, embedder in models:
            c = embedder.contract
            faces = rng.integers(0, 256, (batch, c.height, c.width, 3), dtype=np.uint8)
            inputs.append(c.normalize(faces))
        repeats = [_repeats(e, x) for (_, e), x in zip(models, inputs, strict=True)]
        done += 1
        times = np.empty((rounds, len(models)))
        for r in range(rounds):
            for column, ((_, embedder), x) in enumerate(zip(models, inputs, strict=True)):
                began = time.perf_counter()
                for _ in range(repeats[column]):
                    embedder.run(x)
                times[r, column] = (time.perf_counter() - began) / repeats[column] * 1000
            done += 1
            if progress:
                progress(done, total)
        for column, (name, _) in enumerate(models):
            low, median, high = np.percentile(times[:, column], [25, 50, 75])
            quotients = np.median(times / times[:, column : column + 1], axis=0).tolist()
            ratios = {other: q for (other, _), q in zip(models, quotients, strict=True)}
            timings.append(
                Timing(name, batch, float(median), float(low), float(high), quotients[0], ratios)
            )
    return timings


def _repeats(embedder: Embedder, x: Float32) -> int:
    for _ in range(_WARMUP):
        began = time.perf_counter()
        embedder.run(x)
        seconds = time.perf_counter() - began
    return max(1, int(np.ceil(_MIN_SECONDS / max(seconds, 1e-6))))
