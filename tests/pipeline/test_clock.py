"""Times of students: a real clock, and what it remembers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.errors import RecipeError
from efquantface.importers.load import load_model
from efquantface.pipeline.clock import Clock, Timings
from efquantface.prune.prune import prune
from efquantface.quantize.scheme import Scheme


@pytest.mark.parametrize("scheme", [None, Scheme.parse("w8a8")])
def test_real_clock(network: nn.Module, contract: FaceContract, scheme: Scheme | None) -> None:
    model = load_model(network, contract=contract)
    thinner = prune(
        model, [torch.from_numpy(contract.pixels(make_faces().images))], 0.3, round_to=2
    ).model
    clock = Clock(scheme)
    assert all(0 < clock(m) < 1000 for m in (model, thinner))  # alone, and in turns with the first
    assert clock(model) == clock(model)
    assert len(clock.timings.known) == 2


def test_same_shapes_are_timed_once_and_kept(
    network: nn.Module, contract: FaceContract, tmp_path: Path
) -> None:
    """Weights change no time; with the file of another clock nothing is measured."""
    path = tmp_path / "timings.json"
    torch.manual_seed(5)
    others = load_model(randomize(SmallFaceNet(), 7), contract=contract)
    model = load_model(network, contract=contract)
    clock = Clock(None, Timings(path))
    found = clock(model)
    assert clock(others) == found
    assert Timings.read(path) == clock.timings.known
    known = dict.fromkeys(Timings.read(path), 123.5)
    assert Clock(None, Timings(None, known))(model) == 123.5
    other_bits = Clock(Scheme.parse("w8a8"), Timings(None, known))
    assert other_bits(model) != 123.5


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"a": "b"}', '{"a": -1}', '{"a": NaN}', '{"a": 1e999}', '{"a": true}', "3"]
)
def test_files_that_are_no_timings(text: str, tmp_path: Path) -> None:
    path = tmp_path / "timings.json"
    with pytest.raises(RecipeError, match=r"timings.*cannot be read"):
        Timings.read(path)
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"timings.json: is not a run's"):
        Timings.read(path)
    path.write_text(json.dumps({"a": 1}))
    assert Timings.read(path) == {"a": 1.0}
