"""Packing: every code survives, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.packing import (
    PACKED_OPSET,
    int4_initializer,
    pack_six,
    six_bit_graph,
    stored_bits,
)
from students import student_of


def unpack_six(packed: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int8]:
    """The codes (count,) that :func:`pack_six` packed."""
    shifts = np.array([[0], [2], [4]], np.uint8)
    last = ((packed >> 6) << shifts).sum(axis=0, keepdims=True, dtype=np.uint8)
    rows = np.concatenate([packed & 63, last])
    return (rows.reshape(-1)[:count].astype(np.int16) - 32).astype(np.int8)


@given(arrays(np.int8, st.integers(0, 200), elements=st.integers(-32, 31)))
def test_six_bits_come_back(codes: npt.NDArray[np.int8]) -> None:
    packed = pack_six(codes)
    assert packed.nbytes == 3 * -(-codes.size // 4)
    np.testing.assert_array_equal(unpack_six(packed, codes.size), codes)


def test_all_codes_of_six_bits() -> None:
    codes = np.arange(-32, 32, dtype=np.int8)
    np.testing.assert_array_equal(unpack_six(pack_six(codes), 64), codes)
    with pytest.raises(ValueError, match="6 bits"):
        pack_six(np.array([32], np.int8))


@given(arrays(np.int8, array_shapes(max_dims=4, max_side=7), elements=st.integers(-8, 7)))
def test_int4_equals_onnx_own(codes: npt.NDArray[np.int8]) -> None:
    found = numpy_helper.to_array(int4_initializer(codes, "x")).astype(np.int8)
    np.testing.assert_array_equal(found, codes)


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


@pytest.mark.parametrize("bits", ["w6a8", "w4a8", "w5a6"])
def test_packed_file_holds_the_same_integers(
    bits: str, tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    _, student = student_of(network, contract, bits)
    packed, plain = tmp_path / "packed.onnx", tmp_path / "plain.onnx"
    write_onnx(student, packed)
    write_onnx(student, plain, packed=False)
    opsets = [onnx.load(str(p)).opset_import[0].version for p in (packed, plain)]
    assert [opset >= PACKED_OPSET for opset in opsets] == [True, False]
    faces = make_faces().images
    np.testing.assert_array_equal(
        Embedder.open(packed).embed(faces), Embedder.open(plain).embed(faces)
    )
    weights = sum(getattr(m, "latent", torch.empty(0)).numel() for m in student.graph.modules())
    saved = plain.stat().st_size - packed.stat().st_size
    share = 1 - stored_bits(int(bits[1])) / 8
    assert saved > 0.9 * share * weights - 2000  # the operators that unpack
