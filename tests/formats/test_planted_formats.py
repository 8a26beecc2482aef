"""Faults in packed weights, signed codes, float files, OpenVINO's and scales are caught as well."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

import faults as f
from conftest import SmallFaceNet, randomize
from efquantface.errors import ParityError
from efquantface.export.onnx_writer import to_onnx
from efquantface.formats.delivery import deliver
from efquantface.formats.openvino import check_openvino, for_openvino
from efquantface.formats.table import FORMATS
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from faults import File, put
from planting import (
    CONTRACT,
    DEPTHWISE,
    EXPAND,
    FC,
    PROJECT,
    attribute,
    no_input,
    nothing,
    planted,
    problem_of,
    step,
    zero_point,
)
from students import student_of


@pytest.fixture(scope="module")
def student() -> FaceModel:
    torch.manual_seed(0)
    return student_of(randomize(SmallFaceNet()), CONTRACT)[1]


def six_bits(m: File) -> str:
    return next(i.name for i in m.graph.initializer if i.name.endswith("codes"))


def four_bits(m: File) -> None:
    """One byte, which is two weights."""
    stored = [i for i in m.graph.initializer if i.data_type == onnx.TensorProto.INT4][1]
    data = bytearray(stored.raw_data)
    data[5] ^= 0x11
    stored.raw_data = bytes(data)


def constant(suffix: str, change: object) -> f.Fault:
    """A constant of the operators that unpack six bits."""

    def fault(m: File) -> None:
        name = next(i.name for i in m.graph.initializer if i.name.endswith(suffix))
        m.change(name, change)  # type: ignore[arg-type]

    return fault


PACKED: dict[str, tuple[str, f.Fault]] = {
    "two weights of four bits": ("w4a8", four_bits),
    "scales": ("w4a8", lambda m: m.weight_scale(EXPAND, lambda v: v * 1.01)),
    "contract": ("w4a8", lambda m: m.contract(color="BGR")),
    "last zero point": ("w4a8", zero_point("tail")),
    "first rows only": ("w4a8", f.first_rows_only),
    "six bits: one code": ("w6a8", lambda m: m.change(six_bits(m), put((1, 40), lambda v: v ^ 4))),
    "six bits: offset": ("w6a8", constant("offset", lambda v: v - 1)),
    "six bits: shifts": ("w6a8", constant("shifts", lambda v: v[::-1])),
    "six bits: mask": ("w6a8", constant("mask", lambda v: v >> 1)),
    "six bits: contract": ("w6a8", lambda m: m.contract(std=[1.0] * 3)),
}


@pytest.fixture(scope="module")
def packed() -> dict[str, tuple[FaceModel, onnx.ModelProto]]:
    students = {
        bits: student_of(randomize(SmallFaceNet()), CONTRACT, bits)[1] for bits in ("w4a8", "w6a8")
    }
    return {bits: (student, to_onnx(student)) for bits, student in students.items()}


@pytest.mark.parametrize("name", PACKED)
def test_fault_in_packed_weights_is_caught(
    name: str, packed: dict[str, tuple[FaceModel, onnx.ModelProto]], tmp_path: Path
) -> None:
    bits, fault = PACKED[name]
    student, file = packed[bits]
    assert problem_of(student, planted(file, nothing, tmp_path / "good.onnx")) == ""
    assert problem_of(student, planted(file, fault, tmp_path / "bad.onnx"))


SYMMETRIC: dict[str, f.Fault] = {
    "one weight by one code": lambda m: m.weight(EXPAND, put((7, 3, 0, 0), f.less)),
    "step by a thousandth": step("add", 1.001),
    "embedding scales": lambda m: m.weight_scale(FC, lambda v: v * 1.0009),
    "bias gone": no_input(DEPTHWISE, 2),
    "zero point": zero_point("block_body_0"),
    "contract": lambda m: m.contract(mean=[127.0] * 3),
    "late rows zero": f.late_rows_zeroed,
}


@pytest.fixture(scope="module")
def symmetric() -> tuple[FaceModel, onnx.ModelProto]:
    student = student_of(randomize(SmallFaceNet()), CONTRACT, symmetric=True)[1]
    return student, to_onnx(student)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_fault_in_signed_codes_is_caught(
    name: str, symmetric: tuple[FaceModel, onnx.ModelProto], tmp_path: Path
) -> None:
    student, file = symmetric
    assert problem_of(student, planted(file, nothing, tmp_path / "good.onnx")) == ""
    assert problem_of(student, planted(file, SYMMETRIC[name], tmp_path / "bad.onnx"))


FLOAT: dict[str, f.Fault] = {
    "one weight": lambda m: m.change(
        m.node("conv/block_body_0").input[1], put((3, 3), lambda v: v * 1.05)
    ),
    "bias gone": no_input(PROJECT, 2),
    "channels": lambda m: m.change(m.node(PROJECT).input[1], f.swapped(0)),
    "embedding weight": lambda m: m.change(m.node(FC).input[1], put((3, 4), lambda v: v * 1.01)),
    "embedding of length one": lambda m: m.behind_output("LpNormalization", axis=1, p=2),
    "contract BGR": lambda m: m.contract(color="BGR"),
    "contract mean": lambda m: m.contract(mean=[0.0] * 3),
    "first rows only": f.first_rows_only,
    "late rows zero": f.late_rows_zeroed,
    "padding aside": attribute(DEPTHWISE, "pads", [2, 2, 0, 0]),
    "through float16": f.through_float16,
}


@pytest.mark.parametrize("name", FLOAT)
def test_fault_in_a_float_file_is_caught(name: str, tmp_path: Path) -> None:
    model = load_model(randomize(SmallFaceNet()), contract=CONTRACT)
    file = to_onnx(model)
    assert problem_of(model, planted(file, nothing, tmp_path / "good.onnx")) == ""
    assert problem_of(model, planted(file, FLOAT[name], tmp_path / "bad.onnx"))


def set_bytes(path: Path) -> None:
    """Turn a byte in the middle of a weight's file."""
    data = bytearray(path.read_bytes())
    start = len(data) // 2
    data[start : start + 64] = bytes(v ^ 0x70 for v in data[start : start + 64])
    path.write_bytes(bytes(data))


def edit(suffix: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace the first ``old`` in the text file beside."""

    def fault(path: Path) -> None:
        beside = path.with_suffix(suffix)
        text = beside.read_text()
        assert old in text
        beside.write_text(text.replace(old, new, 1))

    return fault


OPENVINO: dict[str, Callable[[Path], None]] = {
    "contract BGR": edit(".contract.json", '"RGB"', '"BGR"'),
    "contract std": edit(".contract.json", '"std": [127.5', '"std": [128.0'),
    "contract torn": edit(".contract.json", "{", ""),
    "contract gone": lambda path: path.with_suffix(".contract.json").unlink(),
    "weights": lambda path: set_bytes(path.with_suffix(".bin")),
    "padding aside": edit(
        ".xml", 'pads_begin="1, 1" pads_end="1, 1"', 'pads_begin="0, 0" pads_end="2, 2"'
    ),
    "one operator": edit(".xml", 'type="MaxPool"', 'type="Softplus"'),
}


@pytest.mark.parametrize("name", OPENVINO)
def test_fault_in_an_openvino_file_is_caught(name: str, student: FaceModel, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "student.xml"
    deliver(student, FORMATS["openvino"], path)
    form, _ = for_openvino(student)
    assert check_openvino(form, path) > 0.99999
    OPENVINO[name](path)
    with pytest.raises(ParityError, match=re.escape(str(path))):
        check_openvino(form, path)


SCALES: dict[str, Callable[[Path], None]] = {
    "scale": edit(".scales.json", '"zero_point": 128', '"zero_point": 127'),
    "bits": edit(".scales.json", '"bits": 8', '"bits": 7'),
    "torn": edit(".scales.json", "{", ""),
    "weights": set_bytes,
}


@pytest.mark.parametrize("name", SCALES)
def test_fault_in_scales_is_caught(name: str, student: FaceModel, tmp_path: Path) -> None:
    path = tmp_path / "student.onnx"
    form = FORMATS["scales"]
    deliver(student, form, path)
    SCALES[name](path)
    with pytest.raises(ParityError, match="student"):
        form.room.check(student, form.files(path))
