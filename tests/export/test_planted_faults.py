"""Every fault that changes an embedding by more than rounding stops the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import faults as f
from conftest import SIZE, SmallFaceNet, make_faces, randomize
from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ParityError
from efquantface.export.alone import distance
from efquantface.export.onnx_writer import to_onnx
from efquantface.export.openvino import check_openvino, for_openvino, write_openvino
from efquantface.export.parity import check_parity
from efquantface.export.scales import check_scales, write_scales
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.pipeline import deliver
from faults import File, put
from students import student_of

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


def step(name: str, factor: float) -> f.Fault:
    """A quantizer's scale, for all its readers."""
    return lambda m: m.change(m.node(q(name)).input[1], lambda v: v * np.float32(factor))


def zero_point(name: str) -> f.Fault:
    return lambda m: m.change(m.node(q(name)).input[2], f.less)


def negated(v: np.ndarray) -> np.ndarray:
    return -v


def no_input(layer: str, index: int) -> f.Fault:
    def fault(m: File) -> None:
        del m.node(layer).input[index]

    return fault


def attribute(layer: str, name: str, values: list[int]) -> f.Fault:
    def fault(m: File) -> None:
        found = next(a for a in m.node(layer).attribute if a.name == name)
        found.ints[:] = values

    return fault


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


def problem_of(model: FaceModel, path: Path, faces: np.ndarray = FACES) -> str:
    """What the check says; empty where it passes."""
    rows = model.embed_pixels(torch.from_numpy(model.contract.pixels(faces))).detach().numpy()
    try:
        check_parity(model, path, faces, rows).check(path)
    except ParityError as error:
        return str(error) if str(path) in str(error) else ""
    return ""


def planted(model: onnx.ModelProto, fault: f.Fault, path: Path) -> Path:
    changed = File(model)
    fault(changed)
    path.write_bytes(changed.bytes())
    return path


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_caught(
    name: str, student: FaceModel, file: onnx.ModelProto, tmp_path: Path
) -> None:
    fault, wanted = FAULTS[name]
    found = problem_of(student, planted(file, fault, tmp_path / "bad.onnx"))
    assert re.search(wanted, found), found or "passed"


def test_there_are_enough() -> None:
    assert len(FAULTS) >= 40


def nothing(m: File) -> None:
    """The file as it is."""


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


def set_bytes(path: Path, change: f.Fault | None = None) -> None:
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
    write_openvino(student, path)
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
    write_scales(student, path)
    check_scales(student, path)
    SCALES[name](path)
    with pytest.raises(ParityError, match="student"):
        check_scales(student, path)


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
