"""The ways to write an L2 norm, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import NodeProto

from efquantface.errors import UnsupportedOperatorError
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes
from efquantface.importers.onnx.importer import import_onnx
from face_files import WIDE, Arrays, backbone, dense, node, ran, save

X = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
AXES = {"axes": np.array([1]), "last": np.array([-1])}
TINY = {"tiny": np.array([1e-12], np.float32)}


def _root_of(square: list[NodeProto], *rest: NodeProto) -> list[NodeProto]:
    return [*square, node("Sqrt", ["s"], "n"), *(rest or (node("Div", ["e", "n"], "out"),))]


def _reduced(*rest: NodeProto, axes: list[int], keepdims: int = 1) -> list[NodeProto]:
    return [node("ReduceL2", ["e"], "n", axes=axes, keepdims=keepdims), *rest]


TO_OUT = node("Div", ["e", "n"], "out")
SQUARED = [node("Mul", ["e", "e"], "p"), node("ReduceSum", ["p", "axes"], "s", keepdims=1)]
FORMS: dict[str, tuple[list[NodeProto], Arrays]] = {
    "ReduceL2, last axis": (_reduced(TO_OUT, axes=[-1]), {}),
    "ReduceL2, axis 1": (_reduced(TO_OUT, axes=[1]), {}),
    "ReduceL2, Unsqueeze": (
        _reduced(
            node("Unsqueeze", ["n", "axes"], "u"),
            node("Div", ["e", "u"], "out"),
            axes=[1],
            keepdims=0,
        ),
        AXES,
    ),
    "ReduceL2, Clip, Expand (F.normalize)": (
        _reduced(
            node("Clip", ["n", "tiny"], "c"),
            node("Shape", ["e"], "shape"),
            node("Expand", ["c", "shape"], "x"),
            node("Div", ["e", "x"], "out"),
            axes=[1],
        ),
        {"tiny": np.float32(1e-12)},
    ),
    "ReduceL2, a small number added": (
        _reduced(node("Add", ["n", "tiny"], "a"), node("Div", ["e", "a"], "out"), axes=[-1]),
        TINY,
    ),
    "ReduceL2, Reciprocal": (
        _reduced(node("Reciprocal", ["n"], "r"), node("Mul", ["r", "e"], "out"), axes=[1]),
        {},
    ),
    "ReduceL2, one over it": (
        _reduced(node("Div", ["one", "n"], "r"), node("Mul", ["e", "r"], "out"), axes=[1]),
        {"one": np.float32(1)},
    ),
    "Mul, ReduceSum, Sqrt": (_root_of(SQUARED), AXES),
    "Pow, ReduceSum, Sqrt": (
        _root_of(
            [node("Pow", ["e", "two"], "p"), node("ReduceSum", ["p", "last"], "s", keepdims=1)]
        ),
        {**AXES, "two": np.float32(2)},
    ),
    "Pow, ReduceSum, Pow": (
        [*SQUARED, node("Pow", ["s", "half"], "n"), TO_OUT],
        {**AXES, "half": np.float32(0.5)},
    ),
    "Mul by a power of minus one half": (
        [*SQUARED, node("Pow", ["s", "minus"], "r"), node("Mul", ["e", "r"], "out")],
        {**AXES, "minus": np.float32(-0.5)},
    ),
    "Abs, Pow, ReduceSum, Sqrt": (
        _root_of(
            [
                node("Abs", ["e"], "a"),
                node("Pow", ["a", "two"], "p"),
                node("ReduceSum", ["p", "axes"], "s", keepdims=1),
            ]
        ),
        {**AXES, "two": np.float32(2)},
    ),
    "ReduceSumSquare, Max, Sqrt": (
        [
            node("ReduceSumSquare", ["e"], "q", axes=[1], keepdims=1),
            node("Max", ["q", "tiny"], "s"),
            node("Sqrt", ["s"], "n"),
            TO_OUT,
        ],
        TINY,
    ),
    "TensorFlow's: Max, Sqrt, Reciprocal, Mul": (
        [
            *SQUARED,
            node("Max", ["s", "tiny"], "m"),
            node("Sqrt", ["m"], "n"),
            node("Reciprocal", ["n"], "r"),
            node("Mul", ["e", "r"], "out"),
        ],
        {**AXES, **TINY},
    ),
    "LpNormalization, axis 1": ([node("LpNormalization", ["e"], "out", axis=1, p=2)], {}),
    "LpNormalization, last axis": ([node("LpNormalization", ["e"], "out", axis=-1, p=2)], {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_one_operator(form: str, tmp_path: Path) -> None:
    nodes, weights = FORMS[form]
    start, a = backbone()
    layer, b = dense()
    path = save(tmp_path / "m.onnx", [*start, *layer, *nodes], {**a, **b, **weights})
    graph = import_onnx(path).graph
    found = graph(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(found, ran(path, X), rtol=1e-4, atol=1e-5)
    assert sum(isinstance(m, ops.L2Normalize) for _, m in module_nodes(graph)) == 1
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-4)


def test_channels_of_a_map_are_normalized(tmp_path: Path) -> None:
    """Along an axis that is not the last, in the middle of a network."""
    start, a = backbone()
    layer, b = dense(source="u", result="out")
    nodes = [
        node("ReduceL2", ["map"], "n", axes=[1], keepdims=1),
        node("Clip", ["n", "tiny"], "c"),
        node("Div", ["map", "c"], "u"),
    ]
    path = save(
        tmp_path / "m.onnx", [*start, *nodes, *layer], {**a, **b, "tiny": np.float32(1e-12)}
    )
    found = import_onnx(path).graph(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(found, ran(path, X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", ["n", 1])
def test_a_norm_of_everything_is_one_of_a_face(batch: str | int, tmp_path: Path) -> None:
    """Where the file takes one face; otherwise it would mix faces."""
    start, a = backbone()
    layer, b = dense()
    nodes = [node("ReduceL2", ["e"], "n", keepdims=1), TO_OUT]
    path = save(tmp_path / "m.onnx", [*start, *layer, *nodes], {**a, **b}, shape=(batch, 3, 16, 16))
    if batch == 1:
        found = import_onnx(path).graph(torch.from_numpy(X)).detach().numpy()
        np.testing.assert_allclose(found, ran(path, X), rtol=1e-4, atol=1e-5)
    else:
        with pytest.raises(UnsupportedOperatorError, match="across the batch"):
            import_onnx(path)


VECTORS: dict[str, tuple[list[NodeProto], Arrays]] = {
    "Squeeze without axes": ([node("Squeeze", ["e4"], "v")], {}),
    "Squeeze of all": ([node("Squeeze", ["e4", "c"], "v")], {"c": np.array([0, 2, -1])}),
    "the first of one": ([node("Gather", ["e", "zero"], "v")], {"zero": np.array(0)}),
    "Reshape": ([node("Reshape", ["e4", "c"], "v")], {"c": np.array([-1])}),
    "there and back": (
        [
            node("Squeeze", ["e4"], "v0"),
            node("Unsqueeze", ["v0", "zero"], "v1"),
            node("Slice", ["v1", "zero", "one", "zero"], "v2"),
            node("Squeeze", ["v2", "zero"], "v"),
        ],
        {"zero": np.array([0]), "one": np.array([1])},
    ),
}


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("way", VECTORS)
def test_a_vector_of_one_face(way: str, back: bool, tmp_path: Path) -> None:
    """(D,) is normalized over its axis 0, which is no batch."""
    start, a = backbone()
    layer, b = dense()
    nodes, weights = VECTORS[way]
    shaped = node("Reshape", ["e", "four"], "e4")
    last = "out1" if back else "out"
    moved = [*nodes, node("Mul", ["v", "each"], "w"), node("ReduceL2", ["w"], "n", axes=[0])]
    moved.append(node("Div", ["w", "n"], last))
    if back:
        moved.append(node("Reshape", ["out1", "rows"], "out"))
    weights = {**weights, "four": np.array([1, -1, 1, 1]), "rows": np.array([1, -1])}
    weights["each"] = np.linspace(0.5, 1.5, WIDE, dtype=np.float32)
    path = save(
        tmp_path / "m.onnx",
        [*start, *layer, shaped, *moved],
        {**a, **b, **weights},
        shape=(1, 3, 16, 16),
    )
    found = import_onnx(path).graph(torch.from_numpy(X)).detach().numpy()
    wanted = np.stack([ran(path, X[[i]]).reshape(-1) for i in range(len(X))])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        (_reduced(node("Div", ["map2", "n"], "out"), axes=[1]), {}),  # another value's length
        (_root_of(SQUARED, node("Mul", ["e", "n"], "out")), AXES),  # times its length
        ([node("LpNormalization", ["e"], "out", axis=1, p=1)], {}),
    ],
)
def test_what_is_no_l2_norm(nodes: list[NodeProto], weights: Arrays, tmp_path: Path) -> None:
    start, a = backbone()
    layer, b = dense()
    other = node("Relu", ["e"], "map2")
    path = save(tmp_path / "m.onnx", [*start, *layer, other, *nodes], {**a, **b, **weights})
    try:
        graph = import_onnx(path).graph
    except UnsupportedOperatorError:
        return
    assert not any(isinstance(m, ops.L2Normalize) for _, m in module_nodes(graph))
