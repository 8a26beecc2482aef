"""Sums of 16 bits: against a plain loop over pairs, and against kernels that add so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import SIZE, SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.export.emulate import emulate
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.sums16 import lost
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.runtime.processor import lacks_vnni
from students import Pattern, student_of

QEMU = shutil.which("qemu-x86_64")
RUN = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
path, source, target = sys.argv[1:]
session = onnxruntime.InferenceSession(path, options)
np.save(target, session.run(None, {session.get_inputs()[0].name: np.load(source)})[0])
"""


def lost_in_pairs(inputs: list[int], weights: list[int]) -> int:
    """What sums of two neighbours' products exceed int16 by."""
    missing = 0
    for k in range(0, len(inputs), 2):
        total = sum(inputs[i] * weights[i] for i in range(k, min(k + 2, len(inputs))))
        missing += total - min(max(total, -32768), 32767)
    return missing


def with_weight(layer: QuantConv2d | QuantLinear, seed: int) -> Tensor:
    """Give a layer random codes, scale 1; returns them."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-127, 128, layer.latent.shape, generator=generator)
    layer.set_weight(codes.float(), torch.zeros(len(codes)))
    layer.set_scale(torch.ones(len(codes)))
    assert torch.equal(layer.weight_codes()[0].long(), codes)
    return codes


@pytest.mark.parametrize(
    ("inputs", "groups", "kernel", "stride", "padding", "dilation"),
    [
        (3, 1, (3, 3), (1, 1), (1, 1), (1, 1)),  # an odd number of products
        (4, 1, (3, 3), (2, 2), (1, 1), (1, 1)),
        (4, 2, (3, 2), (1, 2), (1, 0), (1, 1)),
        (6, 3, (1, 1), (1, 1), (0, 0), (1, 1)),
        (2, 1, (2, 3), (1, 1), (2, 1), (2, 1)),
    ],
)
def test_convolution(
    inputs: int,
    groups: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """Pairs are neighbours by row, column and channel; padding holds the zero point."""
    layer = QuantConv2d(inputs, 6, kernel, stride, padding, dilation, groups, bits=8)
    weight = with_weight(layer, seed=inputs + groups)
    codes = torch.randint(0, 256, (2, inputs, 6, 5), generator=torch.Generator().manual_seed(1))
    zero_point, each = 113, inputs // groups
    found = lost(layer, codes.double(), zero_point)
    exact = nn.functional.conv2d(
        codes.double(), weight.double(), None, stride, padding, dilation, groups
    )
    assert found is not None
    assert found.shape == exact.shape
    assert found.any()

    def code(n: int, c: int, y: int, x: int) -> int:
        inside = 0 <= y < codes.shape[2] and 0 <= x < codes.shape[3]
        return int(codes[n, c, y, x]) if inside else zero_point

    for n, o, y, x in np.ndindex(*exact.shape):
        group = o // (6 // groups)
        places = [
            (i, j, c) for i in range(kernel[0]) for j in range(kernel[1]) for c in range(each)
        ]
        read = [
            code(
                n,
                group * each + c,
                y * stride[0] - padding[0] + i * dilation[0],
                x * stride[1] - padding[1] + j * dilation[1],
            )
            for i, j, c in places
        ]
        weights = [int(weight[o, c, i, j]) for i, j, c in places]
        assert found[n, o, y, x] == lost_in_pairs(read, weights)


@pytest.mark.parametrize("shape", [(5, 9), (2, 3, 8)])
def test_linear(shape: tuple[int, ...]) -> None:
    layer = QuantLinear(shape[-1], 4, bits=8)
    weight = with_weight(layer, seed=3)
    codes = torch.randint(100, 256, shape, generator=torch.Generator().manual_seed(2))
    found = lost(layer, codes.double(), 0)
    assert found is not None
    assert found.shape == (*shape[:-1], 4)
    assert found.any()
    for *place, o in np.ndindex(*found.shape):
        wanted = lost_in_pairs(codes[tuple(place)].tolist(), weight[o].tolist())
        assert found[(*place, o)] == wanted


def test_nothing_is_lost_where_it_cannot_be() -> None:
    """Depthwise convolutions widen before they add; small weights and small codes stay inside."""
    depthwise = QuantConv2d(4, 4, (3, 3), (1, 1), (1, 1), (1, 1), 4, bits=8)
    with_weight(depthwise, seed=0)
    codes = torch.full((1, 4, 5, 5), 255.0)
    assert lost(depthwise, codes, 0) is None
    dense = QuantConv2d(4, 4, (3, 3), (1, 1), (1, 1), (1, 1), 1, bits=8)
    weight = with_weight(dense, seed=0)
    assert lost(dense, codes, 0) is not None
    assert lost(dense, codes / 255 * 127, 0) is None
    dense.set_weight(weight.float().clamp(-64, 64), torch.zeros(4))
    assert lost(dense, codes, 0) is None


class Grouped(nn.Sequential):
    """A convolution of two groups between dense ones."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 1))


def kernels_of_16_bits(*arguments: Path) -> None:
    """ONNX Runtime as a processor without VNNI runs it: this one, or one that qemu plays."""
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    if not lacks_vnni():
        assert QEMU is not None
        command[:0] = [QEMU, "-cpu", "Haswell"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


@pytest.mark.skipif(not (lacks_vnni() or QEMU), reason="neither a processor without VNNI nor qemu")
@pytest.mark.parametrize("body", ["bottleneck", "groups"])
def test_emulated_sums_are_the_kernels(body: str, tmp_path: Path) -> None:
    contract = FaceContract(SIZE, SIZE, 16, template="unknown")
    torch.manual_seed(0)
    network = randomize(SmallFaceNet() if body == "bottleneck" else Pattern(Grouped()))
    faces = make_faces().images[:8]
    files = tmp_path / "student.onnx", tmp_path / "x.npy", tmp_path / "rows.npy"
    np.save(files[1], contract.normalize(faces))
    pixels = torch.from_numpy(contract.pixels(faces)).float()
    for full_range in (True, False):
        _, student = student_of(network, contract, full_range=full_range)
        write_onnx(student, files[0])
        kernels_of_16_bits(*files)
        rows = np.load(files[2])
        exact, short = (
            emulate(student, pixels).numpy(),
            emulate(student, pixels, sums16=True).numpy(),
        )
        assert cosine(rows, short) > 0.99999
        assert (cosine(rows, exact) < 0.999) is full_range
        np.testing.assert_allclose(rows, short, rtol=0, atol=1e-5 * np.abs(short).max())


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The least cosine of rows."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / lengths).min())
