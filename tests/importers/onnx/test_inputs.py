"""What a file does to crops before its first layer, against ONNX Runtime on the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import NodeProto, TensorProto

from conftest import make_faces
from efquantface.embedding.embedder import Embedder
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.importers.onnx.channels_last import channels_first
from efquantface.pipeline.compress import compress
from efquantface.quantize.fake_quant import InputQuantizer
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.feeding import LUMA
from face_files import SIZE, Arrays, backbone, dense, node, save

FACES = make_faces(6, 4, SIZE)
PIXELS = FACES.images.transpose(0, 3, 1, 2).astype(np.float32)
NORM = {"mean": np.float32(127.5), "std": np.float32(128)}
NORMALIZED = [node("Sub", ["s", "mean"], "d"), node("Div", ["d", "std"], "x")]
PART = {"from": np.array([2]), "to": np.array([14]), "w": np.array([3])}
BACK = {"from": np.array([-1]), "to": np.array([-100]), "by": np.array([-1])}
_EACH = np.array([127.5, 120, 110], np.float32)

FRONTS: dict[str, tuple[list[NodeProto], Arrays]] = {
    "channels by Gather": (
        [node("Gather", ["in", "order"], "s", axis=1)],
        {"order": np.array([2, 1, 0])},
    ),
    "channels by Slice": (
        [node("Slice", ["in", "from", "to", "c", "by"], "s")],
        {**BACK, "c": np.array([1])},
    ),
    "channels by Split": (
        [
            node("Split", ["in"], ["r", "g", "b"], axis=1),
            node("Concat", ["b", "g", "r"], "s", axis=1),
        ],
        {},
    ),
    "channels stacked": (
        [
            *(node("Gather", ["in", f"i{i}"], f"f{i}", axis=1) for i in range(3)),
            *(node("Unsqueeze", [f"f{i}", "c"], f"u{i}") for i in range(3)),
            node("Concat", ["u2", "u1", "u0"], "s", axis=1),
        ],
        {"c": np.array([1]), **{f"i{i}": np.array(i) for i in range(3)}},
    ),
    "a mirror image": (
        [node("Slice", ["in", "from", "to", "w", "by"], "s")],
        {**BACK, "w": np.array([3])},
    ),
    "the normalization first": ([node("Identity", ["in"], "s")], {}),
}


def _file(
    path: Path, nodes: list[NodeProto], weights: Arrays, channels: int = 3, **more: object
) -> Path:
    """A file of these first nodes, which give ``x``."""
    rest, own = backbone("x", channels)
    layer, last = dense(result="out")
    return save(path, [*nodes, *rest, *layer], {**weights, **own, **last}, **more)  # type: ignore[arg-type]


def _there(path: Path, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path))
    return np.asarray(session.run(None, {"in": x})[0])


def _check(model: FaceModel, wanted: np.ndarray) -> None:
    found = model.embed_pixels(torch.from_numpy(PIXELS)).numpy()
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("front", FRONTS)
def test_normalization_is_found_behind_moves(front: str, tmp_path: Path) -> None:
    nodes, weights = FRONTS[front]
    path = _file(tmp_path / "m.onnx", [*nodes, *NORMALIZED], {**weights, **NORM})
    model = load_model(path)
    assert model.contract.is_raw_pixels
    assert "(x - 127.5) / 128" in model.notes[0]
    _check(model, _there(path, PIXELS))
    # the normalization comes first, and the first layer reads the pixels themselves
    first = [m for _, m in module_nodes(model.graph)][:3]
    assert isinstance(first[0], ops.Normalize)
    assert not any(isinstance(m, ops.Affine) for _, m in module_nodes(model.graph))
    student = quantize(model, Scheme())
    quantizer = next(m for _, m in module_nodes(student.graph) if isinstance(m, InputQuantizer))
    assert quantizer.pixels


def test_each_channel_keeps_its_own_normalization_when_swapped(tmp_path: Path) -> None:
    nodes, weights = FRONTS["channels by Gather"]
    norm = {"mean": _EACH.reshape(1, 3, 1, 1), "std": (_EACH / 2).reshape(3, 1, 1)}
    path = _file(tmp_path / "m.onnx", [*nodes, *NORMALIZED], {**weights, **norm})
    model = load_model(path)
    _check(model, _there(path, PIXELS))
    first = next(m for _, m in module_nodes(model.graph))
    assert isinstance(first, ops.Normalize)
    np.testing.assert_allclose(first.mean.numpy(), _EACH[::-1], rtol=1e-5)


GREYS: dict[str, tuple[list[NodeProto], Arrays]] = {
    "a weighted sum": (
        [node("Mul", ["in", "luma"], "m"), node("ReduceSum", ["m", "c"], "s", keepdims=1)],
        {"luma": np.array(LUMA, np.float32).reshape(1, 3, 1, 1), "c": np.array([1])},
    ),
    "a mean": ([node("ReduceMean", ["in"], "s", axes=[1], keepdims=1)], {}),
    "a sum of slices": (
        [
            node("Split", ["in"], ["r", "g", "b"], axis=1),
            *(node("Mul", [c, f"l{c}"], f"m{c}") for c in "rgb"),
            node("Add", ["mr", "mg"], "rg"),
            node("Add", ["rg", "mb"], "s"),
        ],
        {f"l{c}": np.float32(v) for c, v in zip("rgb", LUMA, strict=True)},
    ),
}


@pytest.mark.parametrize("way", GREYS)
def test_grey_made_inside(way: str, tmp_path: Path) -> None:
    """Its shares go into the first layer, which reads the pixels themselves."""
    nodes, weights = GREYS[way]
    path = _file(tmp_path / "m.onnx", [*nodes, *NORMALIZED], {**weights, **NORM}, channels=1)
    model = load_model(path)
    assert "(x - 127.5) / 128" in model.notes[0]
    _check(model, _there(path, PIXELS))
    kinds = [type(m) for _, m in module_nodes(model.graph)][:2]
    assert kinds == [ops.Normalize, ops.Conv2d]


@pytest.mark.parametrize("way", ["Tile", "Expand", "Concat"])
def test_one_channel_taken_three_times(way: str, tmp_path: Path) -> None:
    nodes, weights = {
        "Tile": ([node("Tile", ["in", "r"], "s")], {"r": np.array([1, 3, 1, 1])}),
        "Expand": ([node("Expand", ["in", "r"], "s")], {"r": np.array([1, 3, 1, 1])}),
        "Concat": ([node("Concat", ["in"] * 3, "s", axis=1)], {}),
    }[way]
    path = _file(
        tmp_path / "m.onnx", [*nodes, *NORMALIZED], {**weights, **NORM}, shape=("n", 1, SIZE, SIZE)
    )
    grey = (PIXELS * np.array(LUMA, np.float32).reshape(1, 3, 1, 1)).sum(axis=1, keepdims=True)
    model = load_model(path)
    _check(model, _there(path, grey))
    kinds = [type(m) for _, m in module_nodes(model.graph)][:2]
    assert kinds == [ops.Normalize, ops.Conv2d]


def test_grey_crops_that_a_layer_reads_at_once(tmp_path: Path) -> None:
    """Nothing in the file stands before its first layer, which has one channel."""
    path = _file(
        tmp_path / "m.onnx", [node("Identity", ["in"], "x")], {}, 1, shape=("n", 1, SIZE, SIZE)
    )
    rest, own = backbone("in", 1)
    layer, last = dense(result="out")
    bare = save(tmp_path / "b.onnx", [*rest, *layer], {**own, **last}, shape=("n", 1, SIZE, SIZE))
    grey = (PIXELS * np.array(LUMA, np.float32).reshape(1, 3, 1, 1)).sum(axis=1, keepdims=True)
    for file in (path, bare):
        _check(load_model(file, preprocess="raw"), _there(file, grey))


@pytest.mark.parametrize("kind", ["part", "pad", "transpose"])
def test_normalization_of_part_of_a_crop(kind: str, tmp_path: Path) -> None:
    """``x[:, :, :, 2:14]``, padding or swapped axes, and only then minus 127.5."""
    nodes, weights = {
        "part": ([node("Slice", ["in", "from", "to", "w"], "s")], PART),
        "pad": ([node("Pad", ["in", "p"], "s")], {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
        "transpose": ([node("Transpose", ["in"], "s", perm=[0, 1, 3, 2])], {}),
    }[kind]
    rest, own = backbone("x")
    end = [node("GlobalAveragePool", ["map"], "p0"), node("Flatten", ["p0"], "out")]
    path = save(tmp_path / "m.onnx", [*nodes, *NORMALIZED, *rest, *end], {**weights, **NORM, **own})
    model = load_model(path)
    assert model.contract.is_raw_pixels
    assert "(x - 127.5) / 128" in model.notes[0]
    _check(model, _there(path, PIXELS))


LAYOUTS = {
    "uint8": (("n", 3, SIZE, SIZE), TensorProto.UINT8),
    "channels last": (("n", SIZE, SIZE, 3), TensorProto.FLOAT),
    "channels last, uint8": (("n", SIZE, SIZE, 3), TensorProto.UINT8),
    "grey": (("n", 1, SIZE, SIZE), TensorProto.FLOAT),
    "grey, channels last": ((1, SIZE, SIZE, 1), TensorProto.FLOAT),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_and_types(layout: str, tmp_path: Path) -> None:
    shape, element = LAYOUTS[layout]
    last, one = "last" in layout, "grey" in layout
    swapped = [node("Transpose", ["d2"], "x", perm=[0, 3, 1, 2])] if last else []
    normalized = [
        node("Cast", ["in"], "s", to=TensorProto.FLOAT),
        node("Sub", ["s", "mean"], "d"),
        node("Div", ["d", "std"], "d2" if last else "x"),
    ]
    mean = np.float32([127.5]) if one else _EACH if last else _EACH.reshape(3, 1, 1)
    path = _file(
        tmp_path / "m.onnx",
        [*normalized, *swapped],
        {"mean": mean, "std": np.float32(128)},
        1 if one else 3,
        shape=shape,
        element=element,
    )
    x = PIXELS
    if one:
        x = (x * np.array(LUMA, np.float32).reshape(1, 3, 1, 1)).sum(axis=1, keepdims=True)
    x = x.transpose(0, 2, 3, 1) if last else x
    x = x.astype(np.uint8) if element == TensorProto.UINT8 else x
    wanted = np.concatenate([_there(path, x[i : i + 1]) for i in range(len(x))])
    model = load_model(path)
    assert model.contract.is_raw_pixels
    _check(model, wanted)
    assert len(model.notes) > 1  # what the student takes otherwise is said
    # the file itself is fed in its own layout
    rows = Embedder.open(path).embed(FACES.images)
    np.testing.assert_allclose(rows, wanted, rtol=1e-4, atol=1e-5)
    done = compress(
        path, FACES, tmp_path / "run", epochs=0, quiet=True, anyway=True, benchmark=False, cache=False
    )  # fmt: skip
    assert not done.parity.problems
    assert done.parity.student_cosine > 0.99


@pytest.mark.parametrize("way", ["two passes", "one batch", "one batch, by Slice"])
def test_flip_and_add(way: str, tmp_path: Path) -> None:
    """The embedding of a crop and its mirror image, summed inside the file."""
    flip = node("Slice", ["in", "from", "to", "w", "by"], "mirror")
    weights: Arrays = {**BACK, "w": np.array([3])}
    if way == "two passes":
        rest, own = backbone("in")
        layer, last = dense(result="a")
        again = [
            node("Conv", ["mirror", "w1", "b1"], "c2", strides=[4, 4], pads=[1, 1, 1, 1]),
            node("Relu", ["c2"], "map2"),
            node("Flatten", ["map2"], "flat2"),
            node("Gemm", ["flat2", "gw", "gb"], "b", transB=1),
        ]
        nodes = [flip, *rest, *layer, *again]
    else:
        rest, own = backbone("both")
        layer, last = dense(result="e")
        both = node("Concat", ["in", "mirror"], "both", axis=0)
        if "Slice" in way:
            count = [
                node("Shape", ["both"], "shape"),
                node("Gather", ["shape", "zero"], "two"),
                node("Div", ["two", "halves"], "half"),
                node("Slice", ["e", "zero", "half", "zero"], "a"),
                node("Slice", ["e", "half", "two", "zero"], "b"),
            ]
            weights |= {"zero": np.array([0]), "halves": np.array([2])}
        else:
            count = [node("Split", ["e"], ["a", "b"], axis=0)]
        nodes = [flip, both, *rest, *layer, *count]
    nodes.append(node("Add", ["a", "b"], "out"))
    path = save(tmp_path / "m.onnx", nodes, {**weights, **own, **last})
    x = (PIXELS - 127.5) / 127.5
    model = load_model(path)
    _check(model, _there(path, x))
    assert any("more than once" in note for note in model.notes)
    done = compress(
        path, FACES, tmp_path / "run", epochs=0, quiet=True, anyway=True, benchmark=False, cache=False
    )  # fmt: skip
    assert not done.parity.problems
    assert done.parity.student_cosine > 0.99


def test_a_swap_inside_costs_nothing(tmp_path: Path) -> None:
    """A student of a file that swaps channels is that of the plain file, on swapped crops."""
    nodes, weights = FRONTS["channels by Gather"]
    swapping = _file(tmp_path / "a.onnx", [*nodes, *NORMALIZED], {**weights, **NORM})
    same = node("Identity", ["in"], "s")
    plain = _file(tmp_path / "b.onnx", [same, *NORMALIZED], NORM)
    rows = []
    for path, pixels in ((swapping, PIXELS), (plain, PIXELS[:, ::-1].copy())):
        student = quantize(load_model(path), Scheme())
        set_ranges(student.graph, [torch.from_numpy(pixels)])
        rows.append(student.embed_pixels(torch.from_numpy(pixels)).numpy())
    np.testing.assert_array_equal(*rows)


def test_other_readers_of_channels_last_get_them_back(tmp_path: Path) -> None:
    """What is no arithmetic with constants reads crops in the file's own order."""
    nodes = [
        node("Sub", ["in", "mean"], "d"),
        node("ReduceMean", ["d"], "level", axes=[1, 2, 3], keepdims=1),
        node("Transpose", ["d"], "x", perm=[0, 3, 1, 2]),
    ]
    model, turned = channels_first(
        onnx.load(str(_file(tmp_path / "m.onnx", nodes, {"mean": _EACH}, shape=("n", 16, 16, 3)))),
        "in",
    )
    assert turned == {"d"}
    kinds = [n.op_type for n in model.graph.node][:4]
    assert kinds == ["Sub", "Transpose", "ReduceMean", "Identity"]
    level = next(n for n in model.graph.node if n.op_type == "ReduceMean")
    back = next(n for n in model.graph.node if n.op_type == "Transpose")
    assert level.input[0] == back.output[0]
