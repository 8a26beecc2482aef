"""The small face network's file: names of its layers, ways to plant a fault, and what the check says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch

from conftest import SIZE, make_faces
from efquantface.contract import FaceContract
from efquantface.errors import ParityError
from efquantface.export.parity import check_parity
from efquantface.graph.model import FaceModel
from faults import Fault, File, less

FACES = make_faces().images[:12]
CONTRACT = FaceContract(SIZE, SIZE, 16, template="unknown")

STEM, EXPAND, DEPTHWISE, PROJECT = (
    "conv/stem_0",
    "conv/block_body_0",
    "conv/block_body_3",
    "conv/block_body_6",
)
SLOPES, TAIL, FC = "conv/block_body_2_product", "conv/tail", "gemm/fc"
LAYER = "layer .* differs"  # what a fault inside is called
LAST = "embedding layer differs"


def q(name: str) -> str:
    return f"quantizelinear/{name}_q"


def step(name: str, factor: float) -> Fault:
    """A quantizer's scale, for all its readers."""
    return lambda m: m.change(m.node(q(name)).input[1], lambda v: v * np.float32(factor))


def zero_point(name: str) -> Fault:
    return lambda m: m.change(m.node(q(name)).input[2], less)


def negated(v: np.ndarray) -> np.ndarray:
    return -v


def no_input(layer: str, index: int) -> Fault:
    def fault(m: File) -> None:
        del m.node(layer).input[index]

    return fault


def attribute(layer: str, name: str, values: list[int]) -> Fault:
    def fault(m: File) -> None:
        found = next(a for a in m.node(layer).attribute if a.name == name)
        found.ints[:] = values

    return fault


def problem_of(model: FaceModel, path: Path, faces: np.ndarray = FACES) -> str:
    """What the check says; empty where it passes."""
    rows = model.embed_pixels(torch.from_numpy(model.contract.pixels(faces))).detach().numpy()
    try:
        check_parity(model, path, faces, rows).check(path)
    except ParityError as error:
        return str(error) if str(path) in str(error) else ""
    return ""


def planted(model: onnx.ModelProto, fault: Fault, path: Path) -> Path:
    changed = File(model)
    fault(changed)
    path.write_bytes(changed.bytes())
    return path


def nothing(m: File) -> None:
    """The file as it is."""
