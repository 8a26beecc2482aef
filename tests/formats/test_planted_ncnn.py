"""Faults planted into ncnn's files are caught, however small."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import SmallFaceNet, randomize
from efquantface.errors import ParityError
from efquantface.formats import ncnn as room
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.graph.model import FaceModel
from ncnn_files import NcnnFile
from planting import CONTRACT
from students import Pattern, student_of

pytest.importorskip("ncnn")
EXPAND, DEPTHWISE, PROJECT = "block_body_0", "block_body_3", "block_body_6"
Fault = Callable[[NcnnFile], object]


@pytest.fixture(scope="module")
def student() -> FaceModel:
    torch.manual_seed(0)
    return student_of(randomize(SmallFaceNet()), CONTRACT, symmetric=True)[1]


def value(layer: str, part: str, change: Callable[[np.ndarray], object], at: object = ...) -> Fault:
    """Change a part of a layer's weights, or one place of it."""

    def fault(file: NcnnFile) -> None:
        values = file.value(layer, part)
        values[at] = change(values[at])  # type: ignore[index]

    return fault


def parameter(layer: str, key: int, text: str | None) -> Fault:
    """Set a parameter, or take it out."""

    def fault(file: NcnnFile) -> None:
        parameters = file.line(layer).parameters
        assert parameters.get(key) != text
        parameters.pop(key, None)
        if text is not None:
            parameters[key] = text

    return fault


def kind(layer: str, other: str) -> Fault:
    return lambda file: setattr(file.line(layer), "kind", other)


def torn(file: NcnnFile) -> None:
    del file.data[len(file.data) // 2 :]


FAULTS: dict[str, Fault] = {
    "one weight by one code": value(EXPAND, "weight", lambda v: v - np.sign(v), 115),
    "one depthwise weight by one code": value(DEPTHWISE, "weight", lambda v: v - np.sign(v), 40),
    "one embedding weight by one code": value("fc", "weight", lambda v: v - np.sign(v), 37),
    "one bias by a hundredth": value(PROJECT, "bias", lambda v: v + 0.01, 3),
    "biases in another order": value(EXPAND, "bias", lambda v: v[::-1].copy()),
    "one weight scale": value(PROJECT, "scales", lambda v: v * np.float32(1.001), 5),
    "depthwise weight scales": value(DEPTHWISE, "scales", lambda v: v * np.float32(1.001)),
    "embedding scales": value("fc", "scales", lambda v: v * np.float32(1.0009)),
    "input scale by a thousandth": value(EXPAND, "bottom", lambda v: v * np.float32(1.001)),
    "embedding's input scale": value("fc", "bottom", lambda v: v * np.float32(1.001)),
    "one slope": value("block_body_2_sum_prelu", "slopes", lambda v: v + 0.01, 4),
    "mean of the pixels": value("normalize", "bias", lambda v: v + 0.01),
    "padding aside": parameter(DEPTHWISE, 4, "2"),
    "stride": parameter("stem_0", 3, "1"),
    "limit gone": kind("add_q", "Noop"),
    "another limit": parameter("add_q", 1, "5.9"),
    "mean for maximum": parameter("pool", 0, "1"),
    "difference for sum": parameter("add", 0, "1"),
    "torn": torn,
    "weights of another kind": lambda file: file.data.__setitem__(slice(24, 28), b"\0" * 4),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_caught(name: str, student: FaceModel, tmp_path: Path) -> None:
    path = tmp_path / "s.param"
    files = FORMATS["ncnn"].files(path)
    deliver(student, FORMATS["ncnn"], path)
    file = NcnnFile(path)
    file.save()
    room.check(student, files)
    FAULTS[name](file)
    file.save()
    with pytest.raises(ParityError, match=re.escape(str(path))):
        room.check(student, files)


HANDED_ON: dict[str, Fault] = {
    "scale of codes": value("body_0", "top", lambda v: v * np.float32(1.001)),
    "input scale": value("body_2", "bottom", lambda v: v * np.float32(1.001)),
    "limit gone": parameter("body_0", 9, "0"),
    "another limit": parameter("body_2", -23310, "2,0.0,0.5"),
    "one weight by one code": value("body_2", "weight", lambda v: v - np.sign(v), 40),
}


@pytest.mark.parametrize("name", HANDED_ON)
def test_fault_where_codes_are_handed_on_is_caught(name: str, tmp_path: Path) -> None:
    body = nn.Sequential(
        nn.Conv2d(8, 16, 1), nn.ReLU6(), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6(),
        nn.Conv2d(16, 8, 1),
    )  # fmt: skip
    _, student = student_of(randomize(Pattern(body)), CONTRACT, symmetric=True)
    files = FORMATS["ncnn"].files(tmp_path / "s.param")
    deliver(student, FORMATS["ncnn"], files[0])
    file = NcnnFile(files[0])
    HANDED_ON[name](file)
    file.save()
    with pytest.raises(ParityError, match=r"s\.param"):
        room.check(student, files)


@pytest.mark.parametrize(
    ("old", "new"), [('"RGB"', '"BGR"'), ('"std": [127.5', '"std": [128.0'), ("{", "")]
)
def test_fault_in_the_contract_is_caught(
    old: str, new: str, student: FaceModel, tmp_path: Path
) -> None:
    files = FORMATS["ncnn"].files(tmp_path / "s.param")
    deliver(student, FORMATS["ncnn"], files[0])
    text = files[2].read_text()
    assert old in text
    files[2].write_text(text.replace(old, new, 1))
    with pytest.raises(ParityError, match=r"s\.param"):
        room.check(student, files)
