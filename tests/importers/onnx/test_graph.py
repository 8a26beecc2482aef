"""Each ONNX form gives what ONNX Runtime gives, and every problem is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from efquantface.errors import ModelFileError, UnsupportedOperatorError
from efquantface.importers.load import load_model
from efquantface.importers.onnx.importer import import_onnx
from exported import same_as_onnxruntime
from onnx_forms import BN, CONV, GEMM, RNG, TAIL, W, array, node, save

FORMS = {
    "batchnorm": (
        [CONV, node("BatchNormalization", ["c", *"sbmv"], "x"), *TAIL],
        {**W, **BN, **GEMM},
    ),
    "prelu c11": (
        [CONV, node("PRelu", ["c", "p"], "x"), *TAIL],
        {**W, "p": array(4, 1, 1), **GEMM},
    ),
    "leaky": ([CONV, node("LeakyRelu", ["c"], "x", alpha=0.2), *TAIL], {**W, **GEMM}),
    "clip inputs": (
        [CONV, node("Clip", ["c", "lo", "hi"], "x"), *TAIL],
        {**W, "lo": np.float32(0), "hi": np.float32(1), **GEMM},
    ),
    "sub mul front": (
        [
            node("Sub", ["in", "k1"], "i1"),
            node("Mul", ["i1", "k2"], "i2"),
            node("Conv", ["i2", "w"], "x", pads=[1, 1, 1, 1]),
            *TAIL,
        ],
        {"k1": np.float32(127.5), "k2": np.float32(1 / 128), **W, **GEMM},
    ),
    "asymmetric pads": (
        [node("Conv", ["in", "w"], "x", pads=[0, 1, 2, 1]), *TAIL],
        {**W, **GEMM},
    ),
    "same upper": (
        [node("Conv", ["in", "w"], "x", auto_pad="SAME_UPPER"), *TAIL],
        {**W, **GEMM},
    ),
    "pools and add": (
        [
            CONV,
            node("MaxPool", ["c"], "m1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("AveragePool", ["c"], "a1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Add", ["m1", "a1"], "x"),
            *TAIL,
        ],
        {**W, **GEMM},
    ),
    "reduce mean": (
        [
            CONV,
            node("ReduceMean", ["c"], "f", axes=[2, 3], keepdims=0),
            node("MatMul", ["f", "mw"], "mm"),
            node("Add", ["mm", "mb"], "out"),
        ],
        {**W, "mw": array(4, 5), "mb": array(5)},
    ),
    "bn before padded conv": (
        [
            CONV,
            node("BatchNormalization", ["c", *"sbmv"], "n"),
            node("Relu", ["n"], "r"),
            node("BatchNormalization", ["r", *"sbmv"], "n2"),
            node("Conv", ["n2", "w2"], "x", pads=[1, 1, 1, 1]),
            *TAIL,
        ],
        {**W, **BN, "w2": array(4, 4, 3, 3), **GEMM},
    ),
    "bn after flatten": (
        [
            CONV,
            node("BatchNormalization", ["c", *"sbmv"], "x"),
            node("Dropout", ["x"], "d"),
            node("Identity", ["d"], "d2"),
            node("Flatten", ["d2"], "f"),
            node("Gemm", ["f", "gw", "gb"], "g", transB=1, alpha=0.5, beta=2.0),
            node("BatchNormalization", ["g", "s5", "b5", "m5", "v5"], "out"),
        ],
        {
            **W,
            **BN,
            **GEMM,
            "s5": abs(array(5)),
            "b5": array(5),
            "m5": array(5),
            "v5": abs(array(5)),
        },
    ),
    "shape subgraph": (
        [
            CONV,
            node("Shape", ["c"], "sh"),
            node("Gather", ["sh", "i0"], "n0"),
            node("Concat", ["n0", "minus"], "target", axis=0),
            node("Reshape", ["c", "target"], "f"),
            node("Gemm", ["f", "gw", "gb"], "out", transB=1),
        ],
        {**W, **GEMM, "i0": np.array([0]), "minus": np.array([-1])},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_form_equals_onnxruntime(form: str, tmp_path: Path) -> None:
    nodes, inits = FORMS[form]
    path = save(tmp_path / "m.onnx", nodes, inits)
    x = RNG.uniform(0, 255, (3, 3, 8, 8)).astype(np.float32)
    expected = ort.InferenceSession(str(path)).run(None, {"in": x})[0]
    imported = import_onnx(path)
    found = imported.graph(torch.from_numpy(x)).detach().numpy()
    assert np.abs(found - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1)
    # and after every rewrite, over pixels
    model = load_model(path, preprocess="raw")
    folded = model.embed_pixels(torch.from_numpy(x)).numpy()
    assert np.abs(folded - expected).max() <= 2e-4 * max(np.abs(expected).max(), 1)


def test_baked_batch_is_freed(tmp_path: Path) -> None:
    nodes = [
        CONV,
        node("Reshape", ["c", "target"], "f"),
        node("Gemm", ["f", "gw", "gb"], "out", transB=1),
    ]
    inits = {**W, **GEMM, "target": np.array([1, 256])}
    path = save(tmp_path / "m.onnx", nodes, inits, inp=(1, 3, 8, 8))
    x = array(1, 3, 8, 8)
    expected = ort.InferenceSession(str(path)).run(None, {"in": x})[0]
    graph = import_onnx(path).graph
    found = graph(torch.from_numpy(np.repeat(x, 4, axis=0))).detach().numpy()
    assert found.shape == (4, 5)
    np.testing.assert_allclose(found, np.repeat(expected, 4, axis=0), atol=1e-4)


def test_contract_from_constants_metadata_and_assumption(tmp_path: Path) -> None:
    baked = save(tmp_path / "a.onnx", *FORMS["sub mul front"])
    model = load_model(baked)
    assert model.contract.is_raw_pixels
    assert model.contract.source == "graph constants"
    assert "(x - 127.5) / 128" in model.notes[0]
    plain = load_model(save(tmp_path / "b.onnx", *FORMS["leaky"]))
    assert plain.contract.source == "assumed"
    assert plain.contract.mean == (127.5,) * 3
    assert "assumed" in plain.notes[0]
    declared = load_model(tmp_path / "b.onnx", preprocess="adaface")
    assert declared.contract.color == "BGR"


def test_all_unsupported_nodes_are_named(tmp_path: Path) -> None:
    nodes = [CONV, node("Atan", ["c"], "e"), node("Shape", ["e"], "s"), node("Asinh", ["e"], "x")]
    nodes += [node("Reshape", ["x", "s"], "y"), node("Identity", ["y"], "x2"), *TAIL]
    nodes[-2] = node("Flatten", ["x2"], "f")
    path = save(tmp_path / "m.onnx", nodes, {**W, **GEMM})
    with pytest.raises(UnsupportedOperatorError) as caught:
        import_onnx(path)
    text = str(caught.value)
    assert "2 nodes" in text
    assert "Atan 'the_e'" in text
    assert "Asinh 'the_x'" in text
    assert str(path) in text


def test_a_node_that_breaks_onnx_is_named(tmp_path: Path) -> None:
    """A Slice of opset 9 has its limits as attributes."""
    nodes = [CONV, node("Slice", ["c", "from", "to"], "x"), *TAIL]
    inits = {**W, **GEMM, "from": np.array([0]), "to": np.array([1])}
    path = save(tmp_path / "m.onnx", nodes, inits, opset=9)
    with pytest.raises(ModelFileError, match="Slice 'the_x' has no attribute 'ends'"):
        import_onnx(path)


@pytest.mark.parametrize("opset", [8, 11, 12])
def test_sizes_that_old_opsets_compute(opset: int, tmp_path: Path) -> None:
    """``x.view(x.size(0), -1)``, as PyTorch wrote it up to opset 12."""
    nodes = [
        CONV,
        node("Shape", ["c"], "s"),
        node("Gather", ["s", "zero"], "n", axis=0),
        node("Unsqueeze", ["n"], "n1", axes=[0]),
        node("Concat", ["n1", "rest"], "rows", axis=0),
        node("Reshape", ["c", "rows"], "f"),
        TAIL[1],
    ]
    inits = {**W, **GEMM, "zero": np.array(0), "rest": np.array([-1])}
    same_as_onnxruntime(save(tmp_path / "m.onnx", nodes, inits, opset=opset))


@pytest.mark.parametrize("form", ["batchnorm", "clip inputs"])
def test_nodes_in_any_order(form: str, tmp_path: Path) -> None:
    """Converters to half precision put their casts behind everything; a runtime sorts."""
    nodes, inits = FORMS[form]
    front = node("Sub", ["in0", "mean"], "in1"), node("Cast", ["in"], "in0", to=1)
    first = node("Conv", ["in1", "w"], "c", pads=[1, 1, 1, 1])
    mixed = [first, *nodes[:0:-1], *front]
    path = save(tmp_path / "m.onnx", mixed, {**inits, "mean": np.float32(127.5)})
    same_as_onnxruntime(path)
    assert load_model(path).contract.is_raw_pixels


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"\x00\x01 not a network" * 9)
    (tmp_path / "empty.onnx").write_bytes(b"")
    good = save(tmp_path / "good.onnx", *FORMS["leaky"])
    (tmp_path / "cut.onnx").write_bytes(good.read_bytes()[:-300])
    for name in ("noise", "empty", "cut", "missing"):
        with pytest.raises(ModelFileError, match=name):
            import_onnx(tmp_path / f"{name}.onnx")


def test_not_a_face_network(tmp_path: Path) -> None:
    two = save(
        tmp_path / "two.onnx",
        [CONV, *TAIL[:0], node("Relu", ["c"], "out")],
        W,
        outputs=("out", "c"),
    )
    with pytest.raises(ModelFileError, match="outputs"):
        import_onnx(two)
    image = save(tmp_path / "map.onnx", [CONV, node("Relu", ["c"], "out")], W)
    with pytest.raises(ModelFileError, match="not one embedding"):
        import_onnx(image)
    flat = save(tmp_path / "flat.onnx", [node("Relu", ["in"], "out")], {}, inp=("n", 10))
    with pytest.raises(ModelFileError, match="shape"):
        import_onnx(flat)


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    weight = array(4, 3, 3, 3)
    weight[0, 0, 0, 0] = np.nan
    nodes, inits = FORMS["leaky"]
    path = save(tmp_path / "m.onnx", nodes, {**inits, "w": weight})
    with pytest.raises(ModelFileError, match="'w' holds values that are not finite"):
        import_onnx(path)


def test_quantized_file_is_refused(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", ["in", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], "d"),
        node("Conv", ["d", "w"], "x", pads=[1, 1, 1, 1]),
        *TAIL,
    ]
    inits = {"s": np.float32(1), "z": np.uint8(0), **W, **GEMM}
    with pytest.raises(ModelFileError, match="already quantized"):
        import_onnx(save(tmp_path / "m.onnx", nodes, inits))
