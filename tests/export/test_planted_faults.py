"""Every fault that changes an embedding by more than rounding stops the file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import faults as f
from conftest import SmallFaceNet, randomize
from efquantface.console import Console
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ParityError
from efquantface.export.alone import distance
from efquantface.export.onnx_writer import to_onnx
from efquantface.graph.model import FaceModel
from efquantface.pipeline import deliver
from faults import File, put
from planting import (
    CONTRACT,
    DEPTHWISE,
    EXPAND,
    FACES,
    FC,
    LAST,
    LAYER,
    PROJECT,
    SLOPES,
    STEM,
    TAIL,
    attribute,
    negated,
    no_input,
    nothing,
    planted,
    problem_of,
    q,
    step,
    zero_point,
)
from students import student_of


def redirected(layer: str, index: int, tensor_of: str) -> f.Fault:
    """A layer reads what another reads."""

    def fault(m: File) -> None:
        m.node(layer).input[index] = m.node(tensor_of).input[index]

    return fault


def weight_zero_points(m: File) -> None:
    m.change(m.operand(EXPAND, 1).input[2], lambda v: v + 1)


def codes_clipped(m: File) -> None:
    node = m.node(q("block_body_0"))
    codes, node.output[0] = node.output[0], "unclipped"
    bounds = [m.add("low", np.uint8(0)), m.add("high", np.uint8(200))]
    place = list(m.graph.node).index(node) + 1
    m.graph.node.insert(place, helper.make_node("Clip", ["unclipped", *bounds], [codes]))


def bias_scale(m: File) -> None:
    """ONNX Runtime takes a bias's scale for granted: input's times weight's."""
    m.own(m.maker(m.operand(PROJECT, 2).input[1]), 1, lambda v: v * np.float32(1.01))


def dequantizer(layer: str, index: int, change: object) -> f.Fault:
    """What a layer takes codes for: 1 the scale, 2 the zero point; other readers keep theirs."""
    return lambda m: m.own(m.operand(layer, 0), index, change)  # type: ignore[arg-type]


def permuted(m: File) -> None:
    m.behind_output("Gather", m.add("order", np.arange(15, -1, -1)), axis=1)


def fixed_batch(m: File) -> None:
    m.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def renamed(m: File) -> None:
    m.node(q("tail")).name = "quantizelinear/last"


def loaders_names(m: File) -> None:
    for index, word in enumerate(("Sub_", "Mul_")):
        m.graph.node[index].name = word + str(index)


def unknown_operator(m: File) -> None:
    m.behind_output("Embiggen")


def full_range(m: File) -> None:
    """Two largest weights side by side, and still said to be portable."""
    m.weight(PROJECT, put(0, lambda row: np.where(np.arange(32).reshape(32, 1, 1) < 2, 127, row)))


def weights_shifted(v: np.ndarray) -> np.ndarray:
    return np.roll(v.reshape(-1), 1).reshape(v.shape)


FAULTS: dict[str, tuple[f.Fault, str]] = {
    # weights
    "all scales of a layer": (lambda m: m.weight_scale(EXPAND, lambda v: v * 1.5), LAYER),
    "all scales by a thousandth": (lambda m: m.weight_scale(EXPAND, lambda v: v * 1.001), LAYER),
    "scale of a channel": (lambda m: m.weight_scale(PROJECT, put(3, lambda v: v * 1.1)), LAYER),
    "sign of a channel": (lambda m: m.weight(EXPAND, put(4, negated)), LAYER),
    "one weight by one code": (lambda m: m.weight(EXPAND, put((7, 3, 0, 0), f.less)), LAYER),
    "stem weight by one code": (lambda m: m.weight(STEM, put((2, 1, 0, 2), f.less)), LAYER),
    "depthwise weight by one code": (
        lambda m: m.weight(DEPTHWISE, put((5, 0, 1, 1), f.less)),
        LAYER,
    ),
    "tail weight by one code": (lambda m: m.weight(TAIL, put((1, 0, 4, 4), f.less)), LAYER),
    "sign of the largest weight": (lambda m: m.weight(PROJECT, f.largest), "weights say no"),
    "rows and columns": (lambda m: m.weight(DEPTHWISE, lambda v: v.transpose(0, 1, 3, 2)), LAYER),
    "output channels": (lambda m: m.weight(PROJECT, f.swapped(0)), LAYER),
    "input channels": (lambda m: m.weight(PROJECT, f.swapped(1)), LAYER),
    "colours": (lambda m: m.weight(STEM, lambda v: v[:, ::-1]), LAYER),
    "weights shifted": (lambda m: m.weight(EXPAND, weights_shifted), "weights say no"),
    "weights zero": (lambda m: m.weight(DEPTHWISE, np.zeros_like), LAYER),
    "weight zero points": (weight_zero_points, "holds|does not load|differs"),
    "slopes negated": (lambda m: m.weight(SLOPES, negated), LAYER),
    "slope scale of a channel": (
        lambda m: m.weight_scale(SLOPES, put(9, lambda v: v * 1.02)),
        LAYER,
    ),
    "two weights too large": (full_range, "efquantface.portable=yes, its weights say no"),
    # the last layer
    "embedding rows": (lambda m: m.weight(FC, f.swapped(0)), LAST),
    "embedding weight by one code": (lambda m: m.weight(FC, put((3, 4), f.less)), LAST),
    "embedding scales": (lambda m: m.weight_scale(FC, lambda v: v * 1.0009), LAST),
    "embedding bias gone": (no_input(FC, 2), LAST),
    "embedding bias by one code": (lambda m: m.bias(FC, put(3, lambda v: v + 1)), LAST),
    # biases
    "bias gone": (no_input(PROJECT, 2), LAYER),
    "depthwise bias gone": (no_input(DEPTHWISE, 2), LAYER),
    "bias by one code": (lambda m: m.bias(EXPAND, put(0, lambda v: v + 1)), LAYER),
    "biases negated": (lambda m: m.bias(STEM, negated), LAYER),
    "biases in another order": (lambda m: m.bias(PROJECT, f.swapped(0)), LAYER),
    # activations
    "step by two hundredths": (step("block_body_0", 1.02), LAYER),
    "step by a thousandth": (step("add", 1.001), LAYER),
    "step a quarter": (step("block_body_3", 0.25), LAYER),
    "last step": (step("tail", 1.001), f"{LAYER}|{LAST}"),
    "zero point": (zero_point("block_body_0"), LAYER),
    "zero point of a sum": (zero_point("block_body_2_sum"), LAYER),
    "last zero point": (zero_point("tail"), f"{LAYER}|{LAST}"),
    "last zero point, read": (dequantizer(FC, 2, f.less), LAST),
    "zero point, read": (dequantizer(PROJECT, 2, f.less), LAYER),
    "step, read": (dequantizer("add/add", 1, lambda v: v * np.float32(1.01)), LAYER),
    "codes clipped": (codes_clipped, LAYER),
    # input
    "pixels by one": (
        lambda m: m.change(m.node("add/normalize_offset").input[1], lambda v: v + 1 / 127.5),
        LAYER,
    ),
    "pixel zero point": (
        lambda m: m.own(m.node("quantizelinear/normalize"), 2, lambda v: v + 1),
        LAYER,
    ),
    "pixel step": (
        lambda m: m.own(m.node("quantizelinear/normalize"), 1, lambda v: v * np.float32(1.02)),
        LAYER,
    ),
    "file reads BGR": (f.channels_reversed, LAYER),
    # graph
    "shortcut twice": (
        lambda m: m.node("add/add").input.__setitem__(1, m.node("add/add").input[0]),
        LAYER,
    ),
    "shortcut of another block": (
        redirected("add/block_body_5_sum", 0, "add/block_body_2_sum"),
        LAYER,
    ),
    "padding aside": (attribute(DEPTHWISE, "pads", [2, 2, 0, 0]), LAYER),
    "stem padding aside": (attribute(STEM, "pads", [0, 0, 1, 1]), LAYER),
    "pooling elsewhere": (attribute("maxpool/pool", "kernel_shape", [1, 1]), f"{LAYER}|does not"),
    "embedding of length one": (lambda m: m.behind_output("LpNormalization", axis=1, p=2), LAST),
    "embedding rectified": (lambda m: m.behind_output("Relu"), LAST),
    "embedding in another order": (permuted, LAST),
    "embedding through float16": (f.through_float16, LAST),
    "unknown operator": (unknown_operator, "does not load"),
    # batches
    "first rows only": (f.first_rows_only, "batch of 67"),
    "late rows zero": (f.late_rows_zeroed, "batch of 67"),
    "rows leak": (f.rows_repeated, LAST),
    "batch of one": (fixed_batch, "float tensor of"),
    # what the file says
    "contract BGR": (lambda m: m.contract(color="BGR"), "color 'BGR'"),
    "contract mean": (lambda m: m.contract(mean=[0.0] * 3), "contract says mean"),
    "contract std": (lambda m: m.contract(std=[128.0] * 3), "contract says std"),
    "contract height": (lambda m: m.contract(height=40), "contract says height 40"),
    "contract size": (lambda m: m.contract(embedding_size=8), "contract says embedding_size 8"),
    "contract template": (lambda m: m.contract(template="arcface112"), "contract says template"),
    "contract output": (lambda m: m.contract(output_name="fc1"), "contract says output_name"),
    "contract gone": (lambda m: m.metadata("efquantface.contract", None), "no face contract"),
    "contract torn": (
        lambda m: m.metadata("efquantface.contract", '{"height": 3'),
        "cannot be read",
    ),
    "portable no": (lambda m: m.metadata("efquantface.portable", "no"), "efquantface.portable=no"),
    "portable gone": (lambda m: m.metadata("efquantface.portable", None), "portable=None"),
    "input name": (f.renamed_input, "inputs are data, not input"),
    "output name": (f.renamed_output, "outputs are fc1, not embedding"),
    "second output": (f.second_output, "outputs are embedding, again"),
    "quantizer name": (renamed, "no quantizer named tail_q"),
    "loaders' names": (loaders_names, "InsightFace's loader"),
}


@pytest.fixture(scope="module")
def student() -> FaceModel:
    torch.manual_seed(0)
    return student_of(randomize(SmallFaceNet()), CONTRACT)[1]


@pytest.fixture(scope="module")
def file(student: FaceModel) -> onnx.ModelProto:
    return to_onnx(student)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_caught(
    name: str, student: FaceModel, file: onnx.ModelProto, tmp_path: Path
) -> None:
    fault, wanted = FAULTS[name]
    found = problem_of(student, planted(file, fault, tmp_path / "bad.onnx"))
    assert re.search(wanted, found), found or "passed"


def test_there_are_enough() -> None:
    assert len(FAULTS) >= 40


def last_bit(m: File) -> None:
    """The last bit of a scale moves a value by 2e-5 codes at most."""
    m.change(m.node(q("block_body_0")).input[1], lambda v: np.nextafter(v, np.float32(1)))


def described(m: File) -> None:
    """Words that no client computes with."""
    m.model.doc_string, m.model.graph.name = "a network", "net"


def dead_weight(m: File) -> None:
    """A constant that no operator reads."""
    m.add("unread", np.ones(3, np.float32))


def renumbered(m: File) -> None:
    """Another name for a tensor inside."""
    node = m.node("add/add")
    for reader in m.readers(node.output[0]):
        reader.input[0] = "sum"
    node.output[0] = "sum"


@pytest.mark.parametrize(
    "change", [nothing, last_bit, bias_scale, described, dead_weight, renumbered]
)
def test_what_changes_nothing_passes(
    change: f.Fault, student: FaceModel, file: onnx.ModelProto, tmp_path: Path
) -> None:
    path, good = (
        planted(file, change, tmp_path / "a.onnx"),
        planted(file, nothing, tmp_path / "b.onnx"),
    )
    assert problem_of(student, path) == ""
    rows, right = Embedder.open(path).embed(FACES), Embedder.open(good).embed(FACES)
    assert np.sort(distance(rows, right))[len(rows) // 2] < 1e-6


def test_torn_file(student: FaceModel, file: onnx.ModelProto, tmp_path: Path) -> None:
    for share in (0.3, 0.9):
        path = tmp_path / "torn.onnx"
        data = file.SerializeToString()
        path.write_bytes(data[: int(len(data) * share)])
        assert problem_of(student, path)


@pytest.mark.parametrize("name", ["one weight by one code", "contract BGR", "late rows zero"])
def test_a_run_does_not_deliver_such_a_file(
    name: str, student: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_wrongly(model: FaceModel, path: Path, metadata: dict[str, str]) -> None:
        planted(to_onnx(model, metadata), FAULTS[name][0], path)

    monkeypatch.setattr(deliver, "write_onnx", write_wrongly)
    target = tmp_path / "student.onnx"
    rows = student.embed_pixels(torch.from_numpy(CONTRACT.pixels(FACES))).detach().numpy()
    with pytest.raises(ParityError, match=FAULTS[name][1]):
        deliver.export_student(student, target, FACES, rows, {}, Console())
    assert not target.exists()
