"""Faults planted into ``.tflite`` files, their digests made anew, are caught and named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema

from conftest import SmallFaceNet, randomize
from efquantface.errors import ParityError
from efquantface.formats.litert.checking import check_litert
from efquantface.formats.litert.model import to_litert
from efquantface.graph.model import FaceModel
from efquantface.runtime.litert_file import LAYOUT_KEY
from faults import less, put, swapped
from litert_files import LiteRtFile
from planting import CONTRACT
from students import student_of

Fault = Callable[[LiteRtFile], None]
EXPAND, DEPTHWISE, TAIL = "block_body_0_q", "block_body_3_q", "tail_q"
LAYER, LAST = "layer .* differs", "embeddings differ"


def operand(name: str, index: int, change: Callable[[np.ndarray], object]) -> Fault:
    """A constant that the maker of a quantizer's codes reads."""
    return lambda f: f.change(f.operand(f.maker(name), index), change)


def scales(name: str, index: int, factor: float) -> Fault:
    def fault(f: LiteRtFile) -> None:
        stored = f.operand(f.maker(name), index).quantization
        stored.scale = (np.asarray(stored.scale) * np.float32(factor)).astype(np.float32)

    return fault


def step(name: str, factor: float) -> Fault:
    """The scale of a quantizer's codes."""

    def fault(f: LiteRtFile) -> None:
        f.tensor(name).quantization.scale = f.tensor(name).quantization.scale * np.float32(factor)

    return fault


def zero_point(name: str, by: int) -> Fault:
    def fault(f: LiteRtFile) -> None:
        stored = f.tensor(name).quantization
        stored.zeroPoint = stored.zeroPoint + by

    return fault


def swapped_zero_points(f: LiteRtFile) -> None:
    first, second = (f.tensor(name).quantization for name in ("normalize", EXPAND))
    first.zeroPoint, second.zeroPoint = second.zeroPoint, first.zeroPoint


def no_bias_scales(f: LiteRtFile) -> None:
    f.operand(f.maker(EXPAND), 2).quantization = None


def no_padding(f: LiteRtFile) -> None:
    f.maker(DEPTHWISE).builtinOptions.padding = schema.Padding.VALID


def padding_aside(f: LiteRtFile) -> None:
    """A row and a column of zeros behind the map in place of those in front."""
    f.change(f.operand(f.first("PAD"), 1), lambda v: np.array([[0, 0], [0, 2], [0, 2], [0, 0]]))


def one_crop_only(f: LiteRtFile) -> None:
    """A shape that holds the batch of one."""
    f.change(f.operand(f.first("RESHAPE"), 1), put(0, lambda v: 1))


def limit_gone(f: LiteRtFile) -> None:
    """Codes of few bits that a fused ReLU limited to the zero point."""
    limited = [
        o for o in f.graph.operators if getattr(o.builtinOptions, "fusedActivationFunction", 0)
    ]
    assert limited
    for operator in limited:
        operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE


def last_weight(change: Callable[[np.ndarray], object]) -> Fault:
    """The embedding layer's codes."""

    def fault(f: LiteRtFile) -> None:
        unpacked = f.graph.operators[-1].inputs[1]
        maker = next(o for o in f.graph.operators if unpacked in o.outputs)
        f.change(f.operand(maker, 0), change)

    return fault


INTEGERS: dict[str, tuple[str, Fault, str]] = {
    "one weight by one code": ("w8a8", operand(EXPAND, 1, put((7, 0, 0, 3), less)), LAYER),
    "channels": ("w8a8", operand(EXPAND, 1, swapped(0)), LAYER),
    "one bias": ("w8a8", operand(DEPTHWISE, 2, put(3, lambda v: v + 900)), LAYER),
    "weight scales": ("w8a8", scales(EXPAND, 1, 1.003), LAYER),
    "bias without scales": ("w8a8", no_bias_scales, "one part|does not load"),
    "step": ("w8a8", step("add_q", 1.001), "another scale"),
    "zero point": ("w8a8", zero_point(EXPAND, 1), LAYER),
    "zero points swapped": ("w8a8", swapped_zero_points, "differs|does not load"),
    "padding aside": ("w8a8", padding_aside, LAYER),
    "padding gone": ("w8a8", no_padding, "does not"),
    "one crop only": ("w8a8", one_crop_only, "batch of"),
    "embedding weights": ("w8a8", last_weight(put((3, 4), less)), LAST),
    "embedding columns": ("w8a8", last_weight(swapped(1)), LAST),
    "limit of few bits": ("w4a4", limit_gone, LAYER),
    "weight of four bits": ("w4a4", operand(EXPAND, 1, put((7, 0, 0, 3), less)), LAYER),
    "contract: colours": ("w8a8", lambda f: f.contract(color="BGR"), "BGR"),
    "contract: mean": ("w8a8", lambda f: f.contract(mean=[127.0] * 3), "mean"),
    "contract: size": ("w8a8", lambda f: f.contract(width=31), "31"),
    "contract: no JSON": (
        "w8a8",
        lambda f: f.set_metadata("efquantface.contract", b"{"),
        "contract",
    ),
    "layout": ("w8a8", lambda f: f.set_metadata(LAYOUT_KEY, b"NCHW"), "layout"),
}


@pytest.fixture(scope="module")
def files() -> dict[str, tuple[FaceModel, bytes]]:
    torch.manual_seed(0)
    made = {
        bits: student_of(randomize(SmallFaceNet()), CONTRACT, bits)[1] for bits in ("w8a8", "w4a4")
    }
    teacher, _ = student_of(randomize(SmallFaceNet()), CONTRACT)
    return {k: (m, to_litert(m)) for k, m in {**made, "float": teacher}.items()}


def problem_of(model: FaceModel, data: bytes, path: Path) -> str:
    """What the check says; empty where it passes."""
    path.write_bytes(data)
    try:
        check_litert(model, path)
    except ParityError as error:
        return str(error) if str(path) in str(error) else ""
    return ""


def check_planted(model: FaceModel, data: bytes, fault: Fault, said: str, folder: Path) -> None:
    assert problem_of(model, LiteRtFile(data).bytes(), folder / "good.tflite") == ""
    changed = LiteRtFile(data)
    fault(changed)
    assert re.search(said, problem_of(model, changed.bytes(), folder / "bad.tflite"))


@pytest.mark.parametrize("name", INTEGERS)
def test_fault_in_integers_is_caught(
    name: str, files: dict[str, tuple[FaceModel, bytes]], tmp_path: Path
) -> None:
    bits, fault, said = INTEGERS[name]
    check_planted(*files[bits], fault, said, tmp_path)


FLOAT: dict[str, tuple[Fault, str]] = {
    "one weight": (
        lambda f: f.change(f.operand(f.first("CONV_2D"), 1), put((3, 2, 2, 0), lambda v: v * 1.05)),
        LAST,
    ),
    "slopes": (lambda f: f.change(f.operand(f.first("PRELU"), 1), lambda v: -v), LAST),
    "bias": (
        lambda f: f.change(f.operand(f.first("CONV_2D"), 2), put(2, lambda v: v + 0.01)),
        LAST,
    ),
    "padding aside": (padding_aside, LAST),
    "contract": (lambda f: f.contract(std=[1.0] * 3), "std"),
    "one crop only": (one_crop_only, "batch of"),
}


@pytest.mark.parametrize("name", FLOAT)
def test_fault_in_floats_is_caught(
    name: str, files: dict[str, tuple[FaceModel, bytes]], tmp_path: Path
) -> None:
    check_planted(*files["float"], *FLOAT[name], tmp_path)


def test_a_changed_byte_is_told_by_the_digest(
    files: dict[str, tuple[FaceModel, bytes]], tmp_path: Path
) -> None:
    model, data = files["w8a8"]
    for at in (len(data) // 3, len(data) - 9, 40):
        changed = bytearray(data)
        changed[at] ^= 4
        assert "damaged" in problem_of(model, bytes(changed), tmp_path / "bad.tflite")
