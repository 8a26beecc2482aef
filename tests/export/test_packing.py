"""Packing: every code survives, and what does not fit is refused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from efquantface.export.packing import int4_initializer, pack_six, six_bit_graph


def unpack_six(packed: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int8]:
    """The codes (count,) that :func:`pack_six` packed."""
    shifts = np.array([[0], [2], [4]], np.uint8)
    last = ((packed >> 6) << shifts).sum(axis=0, keepdims=True, dtype=np.uint8)
    rows = np.concatenate([packed & 63, last])
    return (rows.reshape(-1)[:count].astype(np.int16) - 32).astype(np.int8)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 63, 64, 65])
def test_six_bits_come_back(count: int) -> None:
    codes = np.random.default_rng(count).integers(-32, 32, count).astype(np.int8)
    packed = pack_six(codes)
    assert packed.nbytes == 3 * -(-count // 4)
    np.testing.assert_array_equal(unpack_six(packed, count), codes)


def test_all_codes_of_six_bits() -> None:
    codes = np.arange(-32, 32, dtype=np.int8)
    np.testing.assert_array_equal(unpack_six(pack_six(codes), 64), codes)
    with pytest.raises(ValueError, match="6 bits"):
        pack_six(np.array([32], np.int8))


@pytest.mark.parametrize("count", [15, 16])
def test_int4_equals_onnx_own(count: int) -> None:
    codes = (np.arange(count) - 8).astype(np.int8)
    np.testing.assert_array_equal(
        numpy_helper.to_array(int4_initializer(codes, "x")).astype(np.int8), codes
    )


def test_graph_unpacks_in_onnx_reference() -> None:
    rng = np.random.default_rng(0)
    weights = [
        ("a", rng.integers(-32, 32, (3, 2, 3, 3)).astype(np.int8)),
        ("b", rng.integers(-32, 32, (5, 1)).astype(np.int8)),
    ]
    nodes, initializers = six_bit_graph(weights, "p_")
    outputs = [helper.make_tensor_value_info(n, TensorProto.INT8, c.shape) for n, c in weights]
    graph = helper.make_graph(nodes, "g", [], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    for found, (_, codes) in zip(ReferenceEvaluator(model).run(None, {}), weights, strict=True):
        np.testing.assert_array_equal(found, codes)
