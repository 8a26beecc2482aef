"""Whole files as they are found: old opsets, half precision, several outputs, attention."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from efquantface.embedding.embedder import Embedder
from efquantface.errors import ModelFileError
from efquantface.graph.graph import module_nodes
from efquantface.importers.load import load_model
from efquantface.importers.onnx.importer import import_onnx
from onnx_forms import BN, CONV, GEMM, RNG, TAIL, W, array, node, save

PIXELS = RNG.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def check(path: Path, tolerance: float = 1e-4, output: int = 0, **shape: int) -> list[str]:
    """The imported graph against ONNX Runtime on the file itself; returns the operators' kinds."""
    x = RNG.uniform(0, 255, (3, 3, 8, 8)).astype(np.float32)
    session = ort.InferenceSession(str(path))
    kind = session.get_inputs()[0].type
    fed = x.astype(np.float16) if kind == "tensor(float16)" else x
    expected = session.run(None, {session.get_inputs()[0].name: fed})[output].astype(np.float32)
    found = import_onnx(path).graph(torch.from_numpy(x)).detach().numpy()
    assert np.abs(found - expected).max() <= tolerance * max(np.abs(expected).max(), 1)
    model = load_model(path, preprocess="raw")
    folded = model.embed_pixels(torch.from_numpy(x)).numpy()
    assert np.abs(folded - expected).max() <= 2 * tolerance * max(np.abs(expected).max(), 1)
    own = Embedder.open(path, preprocess="raw").embed(PIXELS)
    ours = Embedder.open(model, backend="onnxruntime").embed(PIXELS)
    assert np.abs(own - ours).max() <= 2 * tolerance * max(np.abs(own).max(), 1)
    return [type(module).__name__ for _, module in module_nodes(model.graph)]


def mxnet_export(path: Path, opset: int) -> Path:
    """As mxnet wrote InsightFace's: Sub and Mul in front, PRelu of [C], BatchNorm at the tail."""
    nodes = [
        node("Sub", ["in", "m0"], "_minusscalar0"),
        node("Mul", ["_minusscalar0", "k0"], "_mulscalar0"),
        node("Conv", ["_mulscalar0", "w"], "c", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("BatchNormalization", ["c", *"sbmv"], "n", momentum=0.9, epsilon=2e-5)
        if opset > 8
        else helper.make_node(
            "BatchNormalization", ["c", *"sbmv"], ["n"], spatial=1, momentum=0.9, epsilon=2e-5
        ),
        node("PRelu", ["n", "p"], "a"),
        node("Identity", ["a"], "i"),
        helper.make_node("Dropout", ["i"], ["d"], **({"ratio": 0.4} if opset < 12 else {})),
        node("Flatten", ["d"], "f"),
        node("Gemm", ["f", "gw", "gb"], "g", transB=1),
        node("BatchNormalization", ["g", "s5", "b5", "m5", "v5"], "out", epsilon=2e-5),
    ]
    tail = {"s5": abs(array(5)), "b5": array(5), "m5": array(5), "v5": abs(array(5))}
    scale = {"m0": np.float32([127.5]), "k0": np.float32([0.0078125])}
    slopes = {"p": array(4, 1, 1)}
    save(path, nodes, {**W, **BN, **GEMM, **tail, **scale, **slopes}, opset=opset)
    model = onnx.load(str(path))
    if opset <= 8:  # before IR version 4 every initializer was an input, too
        model.ir_version = 3
        for tensor in model.graph.initializer:
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
        onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("opset", [8, 9, 11, 13, 17, 21])
def test_mxnet_exports(tmp_path: Path, opset: int) -> None:
    path = mxnet_export(tmp_path / "r.onnx", opset)
    kinds = check(path)
    assert kinds == ["Normalize", "Conv2d", "PReLU", "Flatten", "Linear"]
    model = load_model(path)
    assert model.contract.is_raw_pixels
    assert "(x - 127.5) / 128" in model.notes[0]


def test_external_data(tmp_path: Path) -> None:
    path = mxnet_export(tmp_path / "r.onnx", 17)
    model = onnx.load(str(path))
    onnx.save_model(
        model, str(path), save_as_external_data=True, location="r.data", size_threshold=0
    )
    assert (tmp_path / "r.data").is_file()
    check(path)
    (tmp_path / "r.data").unlink()
    with pytest.raises(ModelFileError, match=r"r\.onnx"):
        import_onnx(path)


@pytest.mark.parametrize("inside", ["weights", "everything"])
def test_half_precision(tmp_path: Path, inside: str) -> None:
    half = {k: v.astype(np.float16) for k, v in {**W, **GEMM}.items()}
    if inside == "weights":
        casts = [node("Cast", [k], f"{k}_32", to=TensorProto.FLOAT) for k in half]
        nodes = [*casts, node("Conv", ["in", "w_32"], "x", pads=[1, 1, 1, 1])]
        nodes += [TAIL[0], node("Gemm", ["f", "gw_32", "gb_32"], "out", transB=1)]
        check(save(tmp_path / "h.onnx", nodes, half))
        return
    path = save(tmp_path / "h.onnx", [node("Conv", ["in", "w"], "x", pads=[1] * 4), *TAIL], half)
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, str(path))
    check(path, tolerance=5e-3)  # the file itself computes in half precision


@pytest.mark.parametrize(
    ("pads", "axes"),
    [
        ([0, 0, 1, 2, 0, 0, 0, 3], None),
        ([1, 2, 0, 3], [2, 3]),
        ([2, 1, 3, 0], [3, 2]),
        ([2, 0], [-1]),
        ([0, 0, 3, 0, 0, 0, 0, 1], [0, 1, 3, 2]),
    ],
)
def test_pads_by_axis(tmp_path: Path, pads: list[int], axes: list[int] | None) -> None:
    """From opset 18 a Pad may name its axes, in any order."""
    inputs = ["in", "pads"] + (["", "axes"] if axes else [])
    nodes = [
        node("Pad", inputs, "p"),
        node("Conv", ["p", "w"], "c"),
        node("GlobalAveragePool", ["c"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "gw", "gb"], "out", transB=1),
    ]
    constants = {**W, "gw": array(5, 4), "gb": array(5), "pads": np.array(pads)}
    if axes:
        constants["axes"] = np.array(axes)
    check(save(tmp_path / "p.onnx", nodes, constants, opset=18))


def test_several_outputs(tmp_path: Path) -> None:
    """AdaFace exports give the embedding and its length; the length is left alone."""
    wide = {"gw": array(32, 256), "gb": array(32)}
    nodes = [
        CONV,
        node("Flatten", ["c"], "f"),
        node("Gemm", ["f", "gw", "gb"], "out", transB=1),
        node("ReduceL2", ["out"], "norm", axes=[1], keepdims=1),
    ]
    path = save(tmp_path / "two.onnx", nodes, {**W, **wide}, outputs=("norm", "out"))
    model = onnx.load(str(path))
    for value, width in zip(model.graph.output, (1, 32), strict=True):
        new = helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["n", width])
        value.CopyFrom(new)
    onnx.save(model, str(path))
    check(path, output=1)
    assert load_model(path).contract.output_name == "out"


def test_quantized_files_are_refused(tmp_path: Path) -> None:
    nodes = [
        CONV,
        node("DynamicQuantizeLinear", ["c"], "q"),
        *TAIL,
    ]
    nodes[1].output.extend(["qs", "qz"])
    path = save(tmp_path / "q.onnx", [*nodes[:2], node("Relu", ["c"], "x"), *TAIL], {**W, **GEMM})
    with pytest.raises(ModelFileError, match="already quantized"):
        import_onnx(path)


def test_squeeze_and_excitation(tmp_path: Path) -> None:
    nodes = [
        CONV,
        node("GlobalAveragePool", ["c"], "p"),
        node("Conv", ["p", "w1"], "h"),
        node("Relu", ["h"], "r"),
        node("Conv", ["r", "w2"], "e"),
        node("Sigmoid", ["e"], "g"),
        node("Mul", ["g", "c"], "x"),
        *TAIL,
    ]
    weights = {"w1": array(2, 4, 1, 1), "w2": array(4, 2, 1, 1)}
    kinds = check(save(tmp_path / "se.onnx", nodes, {**W, **GEMM, **weights}))
    assert {"Sigmoid", "Multiply"} <= set(kinds)


def transformer(path: Path, opset: int, *, stacked: bool) -> Path:
    """LayerNorm in parts, GELU in parts, attention over channels with its parts stacked in front."""
    heads, each = 2, 2
    width = heads * each
    nodes = [
        CONV,
        node("Reshape", ["c", "rows"], "r"),
        node("Transpose", ["r"], "t", perm=[0, 2, 1]),
        node("Add", ["t", "position"], "y"),
        node("ReduceMean", ["y"], "mu", axes=[-1]),
        node("Sub", ["y", "mu"], "d"),
        node("Pow", ["d", "two"], "sq"),
        node("ReduceMean", ["sq"], "var", axes=[-1]),
        node("Add", ["var", "eps"], "ve"),
        node("Sqrt", ["ve"], "sd"),
        node("Div", ["d", "sd"], "n0"),
        node("Mul", ["n0", "lw"], "n1"),
        node("Add", ["n1", "lb"], "n"),
        node("MatMul", ["n", "wq"], "m"),
        node("Add", ["bq", "m"], "qkv"),
        node("Reshape", ["qkv", "split"], "s"),
    ]
    if stacked:  # (3, N, heads, each, places), taken apart along the first axis
        nodes.append(node("Transpose", ["s"], "st", perm=[2, 0, 3, 4, 1]))
        nodes += [node("Gather", ["st", f"i{i}"], f"a{i}", axis=0) for i in range(3)]
    else:
        nodes.append(node("Transpose", ["s"], "st", perm=[0, 2, 3, 4, 1]))
        split = helper.make_node("Split", ["st", "ones"], ["s0", "s1", "s2"], axis=1, name="split")
        nodes.append(split)
        nodes += [node("Squeeze", [f"s{i}", "axis1"], f"a{i}") for i in range(3)]
    for i in (0, 1):
        nodes += [
            node("ReduceL2", [f"a{i}"], f"len{i}", axes=[-1], keepdims=1),
            node("Clip", [f"len{i}", "tiny"], f"at{i}"),
            node("Shape", [f"a{i}"], f"sh{i}"),
            node("Expand", [f"at{i}", f"sh{i}"], f"ex{i}"),
            node("Div", [f"a{i}", f"ex{i}"], f"u{i}"),
        ]
    nodes += [
        node("Transpose", ["u1"], "kt", perm=[0, 1, 3, 2]),
        node("MatMul", ["u0", "kt"], "att"),
        node("Mul", ["att", "temperature"], "att2"),
        node("Softmax", ["att2"], "soft", axis=-1),
        node("MatMul", ["soft", "a2"], "mixed"),
        node("Transpose", ["mixed"], "back", perm=[0, 3, 1, 2]),
        node("Reshape", ["back", "join"], "j"),
        node("Div", ["j", "sqrt2"], "g0"),
        node("Erf", ["g0"], "g1"),
        node("Add", ["g1", "one"], "g2"),
        node("Mul", ["j", "g2"], "g3"),
        node("Mul", ["g3", "half"], "g"),
        node("Mul", ["gamma", "g"], "scaled"),
        node("Add", ["y", "scaled"], "sum"),
        node("Flatten", ["sum"], "f"),
        node("Gemm", ["f", "gw", "gb"], "out", transB=1),
    ]
    constants = {
        **W,
        **GEMM,
        "rows": np.array([0, width, 64]),
        "position": array(1, 64, width),
        "two": np.float32(2),
        "eps": np.float32(1e-5),
        "lw": abs(array(width)),
        "lb": array(width),
        "wq": array(width, 3 * width),
        "bq": array(3 * width),
        "split": np.array([-1, 64, 3, heads, each]),
        "ones": np.array([1, 1, 1]),
        "axis1": np.array([1]),
        **{f"i{i}": np.array(i) for i in range(3)},
        "tiny": np.float32(1e-12),
        "temperature": abs(array(heads, 1, 1)),
        "join": np.array([0, 64, width]),
        "sqrt2": np.float32(2**0.5),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "gamma": array(width),
    }
    return save(path, nodes, constants, opset=opset)


@pytest.mark.parametrize("stacked", [False, True])
def test_attention(tmp_path: Path, stacked: bool) -> None:
    path = transformer(tmp_path / "t.onnx", 17, stacked=stacked)
    counts = Counter(check(path))
    assert counts["LayerNorm"] == counts["Gelu"] == counts["Softmax"] == 1
    assert counts["L2Normalize"] == counts["MatMul"] == 2
    assert not counts["Affine"]
    graph = import_onnx(path).graph
    x = torch.rand(4, 3, 8, 8)
    # the batch stays free
    torch.testing.assert_close(graph(x)[2:3], graph(x[2:3]), rtol=1e-4, atol=1e-4)


def test_what_works_across_the_batch_is_refused(tmp_path: Path) -> None:
    nodes = [
        CONV,
        node("Transpose", ["c"], "t", perm=[1, 0, 2, 3]),
        node("Softmax", ["t"], "x", axis=1),
        *TAIL,
    ]
    path = save(tmp_path / "b.onnx", nodes, {**W, **GEMM})
    with pytest.raises(ModelFileError, match=r"Softmax 'the_x' \(works across the batch\)"):
        import_onnx(path)


def test_names_of_constants(tmp_path: Path) -> None:
    """A Constant node in front does not hide the preprocessing behind it."""
    constant = helper.make_node(
        "Constant", [], ["k"], value=numpy_helper.from_array(np.float32([127.5]))
    )
    nodes = [
        constant,
        node("Identity", ["k"], "std"),
        node("Sub", ["in", "k"], "s"),
        node("Div", ["s", "std"], "n"),
        node("Conv", ["n", "w"], "x", pads=[1, 1, 1, 1]),
        *TAIL,
    ]
    model = load_model(save(tmp_path / "c.onnx", nodes, {**W, **GEMM}))
    assert model.contract.source == "graph constants"
