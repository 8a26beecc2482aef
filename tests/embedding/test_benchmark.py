"""Timings with a clock that models themselves put forward."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from efquantface.contract import FaceContract
from efquantface.embedding import benchmark as module
from efquantface.embedding.embedder import Embedder


class Clock:
    """Seconds, which pass only when a model is run; the machine gets slower by the round."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, 0

    def model(self, contract: FaceContract, seconds: float) -> Embedder:
        def run(x: Any) -> Any:
            self.calls += 1
            self.now += seconds * len(x) * (1 + self.calls // 100)
            return np.zeros((len(x), 1), np.float32)

        return Embedder(contract, "a model", "a clock", run)


def measured(contract: FaceContract, monkeypatch: pytest.MonkeyPatch) -> module.Speed:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    models = [(n, clock.model(contract, s)) for n, s in (("a", 0.06), ("b", 0.03), ("c", 0.02))]
    return module.measure(models, 3, batches=(4, 1), rounds=9)


def test_ratios_to_every_model(contract: FaceContract, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = measured(contract, monkeypatch)
    assert speed.batches == [1, 4]
    for batch in speed.batches:
        found = speed.at(batch)
        assert list(found) == ["a", "b", "c"]
        assert found["c"].ratio == found["c"].ratios["a"] == pytest.approx(3)
        assert found["c"].ratios["b"] == pytest.approx(1.5)
        assert found["a"].ratios == pytest.approx({"a": 1, "b": 0.5, "c": 1 / 3})
        for t in found.values():
            assert t.low_ms <= t.median_ms <= t.high_ms
            assert t.faces_a_second == pytest.approx(batch * 1000 / t.median_ms)
    assert speed.at(1)["a"].median_ms == pytest.approx(60)
    assert speed.at(4)["a"].median_ms == pytest.approx(240)


def test_conditions_are_plain_data(contract: FaceContract, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.processor, "in_words", lambda: "X 1, x86 with VNNI")
    stored = json.loads(json.dumps(measured(contract, monkeypatch).conditions()))
    assert stored["processor"] == "X 1, x86 with VNNI"
    assert stored["threads"] == 3
    assert set(stored["load"]) == {"cores", "average", "own", "others", "busy"}
