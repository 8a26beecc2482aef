"""ONNX files that parse and contradict themselves: one error that names the file and the place."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from efquantface.errors import EfqError, ModelFileError
from efquantface.importers.load import load_model
from efquantface.importers.onnx.facts import read_facts
from efquantface.importers.onnx.proto import load_proto
from face_files import backbone, dense, node, save


@pytest.fixture
def model(tmp_path: Path) -> onnx.ModelProto:
    nodes, weights = backbone()
    end, more = dense("map", "out")
    return onnx.load(str(save(tmp_path / "m.onnx", [*nodes, *end], {**weights, **more})))


def refused(model: onnx.ModelProto, tmp_path: Path, match: str) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(model.SerializeToString())
    for read in (load_model, read_facts):
        with pytest.raises(EfqError, match=rf"damaged\.onnx: .*{match}"):
            read(path)


@pytest.mark.parametrize("dims", [[2], [-1, 5], [10**9, 10**9], [], [0], [3, 3, 3, 3, 3]])
def test_sizes_that_are_not_those_of_the_bytes(
    model: onnx.ModelProto, tmp_path: Path, dims: list[int]
) -> None:
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    refused(model, tmp_path, tensor.name)


@pytest.mark.parametrize(
    "kind", [TensorProto.UNDEFINED, 77, TensorProto.STRING, TensorProto.DOUBLE]
)
def test_types_that_are_not_those_of_the_bytes(
    model: onnx.ModelProto, tmp_path: Path, kind: int
) -> None:
    model.graph.initializer[0].data_type = kind
    refused(model, tmp_path, model.graph.initializer[0].name)


def test_values_in_every_field_and_type_are_taken(tmp_path: Path, model: onnx.ModelProto) -> None:
    """Whatever ONNX's own helpers write."""
    kinds = ["FLOAT16", "BFLOAT16", "DOUBLE", "INT64", "BOOL", "UINT8", "FLOAT8E4M3FN", "COMPLEX64"]
    for kind in kinds:
        number = TensorProto.DataType.Value(kind)
        model.graph.initializer.append(helper.make_tensor(f"t{kind}", number, [2, 3], [1] * 6))
    model.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [1], [b"a"]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((0, 3), np.float32), "none"))
    for kind in ("INT4", "UINT4"):
        number = TensorProto.DataType.Value(kind)
        model.graph.initializer.append(helper.make_tensor(f"t{kind}", number, [5], [1] * 5))
    path = tmp_path / "many.onnx"
    path.write_bytes(model.SerializeToString())
    assert len(load_proto(path).graph.initializer) == len(model.graph.initializer)


def test_attributes_that_are_missing_or_of_another_type(
    model: onnx.ModelProto, tmp_path: Path
) -> None:
    gemm = next(n for n in model.graph.node if n.op_type == "Gemm")
    attribute = next(a for a in gemm.attribute if a.name == "transB")
    attribute.type = onnx.AttributeProto.STRING
    refused(model, tmp_path, "attribute 'transB' of Gemm .* is not INT")
    attribute.type = 0
    refused(model, tmp_path, "has no type")
    del gemm.attribute[:]
    gemm.op_type = "Cast"
    refused(model, tmp_path, "Cast .* has no attribute 'to'")
    gemm.op_type = "Conv"
    del gemm.input[1:]
    refused(model, tmp_path, "Conv .* has 1 inputs")


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        (("n", 3, 100_000, 100_000), "up to 2048 pixels"),
        ((1, 3, 16, 2**62), "up to 2048 pixels"),
        ((1_000_000, 3, 112, 112), "1,000,000 crops at a time"),
        ((-4, 3, 16, 16), "has shape"),
    ],
)
def test_inputs_that_no_crop_has(
    model: onnx.ModelProto, tmp_path: Path, shape: tuple[int | str, ...], match: str
) -> None:
    value = helper.make_tensor_value_info("in", TensorProto.FLOAT, list(shape))
    model.graph.input[0].CopyFrom(value)
    refused(model, tmp_path, match)


def test_a_fixed_batch_of_many_is_taken(model: onnx.ModelProto, tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("in", TensorProto.FLOAT, [256, 3, 16, 16])
    model.graph.input[0].CopyFrom(value)
    path = tmp_path / "batch.onnx"
    path.write_bytes(model.SerializeToString())
    assert load_model(path).contract.embedding_size == 24


GROWN = {
    "pads": np.array([0, 0, 0, 0, 0, 0, 10**6, 10**6], np.int64),
    "shape": np.array([10**5, 10**5], np.int64),
    "many": np.array([1, 1, 10**5, 10**5], np.int64),
}


@pytest.mark.parametrize(
    "grows",
    [
        [node("Pad", ["in", "pads"], "big")],
        [node("Tile", ["in", "many"], "big")],
        [node("ConstantOfShape", ["shape"], "c"), node("Add", ["in", "c"], "big")],
        [node("Expand", ["one", "shape"], "c"), node("Add", ["in", "c"], "big")],
        [node("Range", ["zero", "end", "step"], "c"), node("Add", ["in", "c"], "big")],
    ],
)
def test_what_grows_beyond_any_network_is_named(tmp_path: Path, grows: list) -> None:
    nodes, weights = backbone("big")
    end, more = dense("map", "out")
    scalars = {
        "one": np.ones((1, 1), np.float32),
        "zero": np.float32(0),
        "end": np.float32(1e15),
        "step": np.float32(1),
    }
    path = tmp_path / "grown.onnx"
    save(path, [*grows, *nodes, *end], {**weights, **more, **GROWN, **scalars})
    with pytest.raises(ModelFileError, match=r"grown\.onnx"):
        load_model(path)


@pytest.mark.parametrize("name", ["class", "graph", "code", "self", "meta", "\ufb01lter", "\u00b2"])
def test_names_that_mean_something_elsewhere(tmp_path: Path, name: str) -> None:
    nodes, weights = backbone()
    end, more = dense("map", "out")
    for item in (*nodes, *end):
        item.name = ""
    end[-1].name = name
    plain = load_model(save(tmp_path / "n.onnx", [*nodes, *end], {**weights, **more}))
    assert plain.contract.embedding_size == 24


def test_any_damage_is_one_kind_of_error(model: onnx.ModelProto, tmp_path: Path) -> None:
    whole, draw, path = model.SerializeToString(), random.Random(0), tmp_path / "m.onnx"
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 3, 8))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data)
        try:
            said = str(load_model(path).source)
        except EfqError as error:
            said = str(error)
        assert "m.onnx" in said
