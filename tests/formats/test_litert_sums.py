"""Sums in XNNPACK: its arithmetic is known to the last code, and scales are moved so that it is ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import SmallFaceNet, randomize
from efquantface.contract import FaceContract
from efquantface.formats.litert.checking import check_litert
from efquantface.formats.litert.model import to_litert
from efquantface.formats.litert.sums import Stored, compensated, free_scales, xnnpack_sums
from efquantface.formats.litert.tables import Operation, Tensor, packed
from efquantface.graph.graph import module_nodes, name_of
from efquantface.quantize.fake_quant import ActivationQuantizer
from students import student_of


def litert_sums(first: Stored, second: Stored, made: Stored) -> np.ndarray:
    """LiteRT's codes (256,256) of any two codes."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    codes = np.arange(-128, 128, dtype=np.int8)
    shape = (1, 256, 256, 1)
    tensors = [
        Tensor(
            shape, np.int8, data=data, scales=np.asarray([x.scale]), zero_point=x.zero_point - 128
        )
        for x, data in (
            (first, None),
            (second, np.broadcast_to(codes[None, None, :, None], shape)),
            (made, None),
        )
    ]
    data = packed(tensors, [Operation("ADD", (0, 1), 2)], (0, 2), {})
    interpreter = litert.Interpreter(model_content=data)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.broadcast_to(codes[None, :, None, None], shape).copy())
    interpreter.invoke()
    output = interpreter.get_output_details()[0]["index"]
    return interpreter.get_tensor(output)[0, ..., 0].astype(int) + 128


@pytest.mark.parametrize("seed", range(12))
def test_xnnpack_is_known_to_the_last_code(seed: int) -> None:
    draw = np.random.default_rng(seed)
    scales = (10.0 ** draw.uniform(-3, 1, 3)).astype(np.float32)
    scales[2] = max(scales[2], scales.max() / 200)
    points = draw.integers(0, 256, 3)
    stored = [Stored(s, int(z)) for s, z in zip(scales, points, strict=True)]
    a, b = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    assert (litert_sums(*stored) == xnnpack_sums(*stored, a, b)).all()


def test_scales_that_keep_every_product() -> None:
    """The factor from accumulators to codes is the same float32 number, or the next one."""
    draw = np.random.default_rng(0)
    scales = draw.uniform(1e-4, 1e-2, 500).astype(np.float32)
    source, made = np.float32(0.0235), np.float32(0.0471)
    near = np.float32(source * (1 + 1.1e-6)), np.float32(made * (1 - 0.7e-6))
    found = compensated(scales, (float(source), float(made)), (float(near[0]), float(near[1])))
    right = (source * scales).astype(np.float32) / made
    factors = (near[0] * found).astype(np.float32) / near[1]
    assert (factors == right).mean() > 0.75  # the others are neighbours
    np.testing.assert_allclose(factors, right, rtol=1.3e-7)
    np.testing.assert_allclose(found, scales, rtol=3e-6)


@pytest.mark.parametrize("steep", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_prelu_network_has_its_students_codes(
    tmp_path: Path, contract: FaceContract, steep: bool, symmetric: bool
) -> None:
    """Where a student's sum would fall to other codes, a scale is moved, by millionths at most."""
    moved = left = 0
    for seed in range(5):
        torch.manual_seed(seed)
        network = randomize(SmallFaceNet(), seed)
        for child in network.modules():
            if isinstance(child, nn.PReLU) and not steep:
                child.weight.data.clamp_(max=1)
        _, student = student_of(network, contract, symmetric=symmetric)
        scales = free_scales(student.graph)
        own = {
            name_of(node): module.qparams()[0]
            for node, module in module_nodes(student.graph)
            if isinstance(module, ActivationQuantizer)
        }
        for name, scale in scales.items():
            assert scale != np.float32(own[name])
            assert abs(scale / own[name] - 1) < 1e-5
        moved += len(scales)
        path = tmp_path / f"{seed}.tflite"
        path.write_bytes(to_litert(student))
        xnnpack, _ = check_litert(student, path)
        differing = [layer for layer in xnnpack.layers if layer.differing]
        assert all(layer.name.endswith(("add_q", "sum_q")) for layer in differing)
        assert all(layer.max_codes == 1 and layer.beyond < 1e-4 for layer in differing)
        left += len(differing)
    assert moved > 0
    assert left <= 3  # of 20 sums; between two codes, no scale makes all pairs right
