"""Activations of mobile networks, in every form that exporters write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from efquantface.graph import ops
from efquantface.graph.graph import module_nodes
from efquantface.importers.load import load_model
from exported import Fn, around, behind, check, export, same_as_onnxruntime
from onnx_forms import CONV, GEMM, TAIL, W, array, node, save

MODULES: dict[str, nn.Module] = {
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hard swish in parts": Fn(lambda x: x * F.relu6(x + 3) / 6),
    "hard swish, gate first": Fn(lambda x: x * (F.relu6(x + 3) / 6)),
    "swish": nn.SiLU(),
    "quick gelu": Fn(lambda x: x * torch.sigmoid(1.702 * x)),
    "mish": nn.Mish(),
    "elu": nn.ELU(0.7),
    "selu": nn.SELU(),
    "celu": nn.CELU(0.7),
    "gelu": nn.GELU(),
    "tanh gelu": nn.GELU("tanh"),
    "tanh": nn.Tanh(),
    "softplus": nn.Softplus(),
    "softsign": nn.Softsign(),
    "log sigmoid": nn.LogSigmoid(),
    "hardtanh": nn.Hardtanh(),
    "tanhshrink": nn.Tanhshrink(),
    "softshrink": nn.Softshrink(),
    "hardshrink": nn.Hardshrink(),
    "leaky relu": nn.LeakyReLU(0.1),
    "leaky relu by choice": Fn(lambda x: torch.where(x > 0.5, x, 0.1 * x)),
    "relu squared": Fn(lambda x: F.relu(x) ** 2),
}


@pytest.mark.parametrize("name", MODULES)
def test_activation(name: str, tmp_path: Path) -> None:
    _, parity = check(export(around(nn.Conv2d(8, 8, 1), MODULES[name]), tmp_path / "a.onnx"))
    assert parity.executed.convolutions == parity.executed.integer_convolutions


@pytest.mark.parametrize("opset", [11, 13, 14])
def test_hard_swish_of_every_opset_is_computed_in_integers(opset: int, tmp_path: Path) -> None:
    path = export(around(nn.Conv2d(8, 8, 1), nn.Hardswish()), tmp_path / "a.onnx", opset)
    _, parity = check(path)
    assert set(parity.executed.in_float) == {"Add"}  # of the pixels
    assert parity.executed.counts["QLinearMul"] == 1


PRELUS = {
    "by negation": lambda x: F.relu(x) - 0.25 * F.relu(-x),
    "by absolute values": lambda x: F.relu(x) + 0.25 * (x - x.abs()) * 0.5,
    "by the larger": lambda x: torch.maximum(x, 0.25 * x),
    "by limits": lambda x: x.clamp(min=0) + 0.25 * x.clamp(max=0),
}


@pytest.mark.parametrize("name", PRELUS)
def test_prelu_in_parts_is_a_prelu(name: str, tmp_path: Path) -> None:
    path = export(around(nn.Conv2d(8, 8, 1), Fn(PRELUS[name])), tmp_path / "p.onnx")
    _, parity = check(path)
    found = [m for _, m in module_nodes(load_model(path).graph) if isinstance(m, ops.PReLU)]
    assert len(found) == 1
    torch.testing.assert_close(found[0].slope, torch.full((8,), 0.25))
    assert set(parity.executed.in_float) == {"Add"}


LIMITS = {
    "min of max": [node("Max", ["c", "zero"], "m"), node("Min", ["m", "six"], "x")],
    "max of min": [node("Min", ["six", "c"], "m"), node("Max", ["zero", "m"], "x")],
    "clip of relu": [node("Relu", ["c"], "m"), node("Clip", ["m", "", "six"], "x")],
}


@pytest.mark.parametrize("name", LIMITS)
def test_two_limits_are_a_relu6(name: str, tmp_path: Path) -> None:
    inits = {**W, **GEMM, "zero": np.float32(0), "six": np.float32([6])}
    path = save(tmp_path / "l.onnx", [CONV, *LIMITS[name], *TAIL], inits)
    model = load_model(path, preprocess="raw")
    clamps = [m for _, m in module_nodes(model.graph) if isinstance(m, ops.Clamp)]
    assert [(m.low, m.high) for m in clamps] == [(0, 6)]


ONE_NODE = {
    "HardSwish": (14, {}),
    "HardSigmoid": (13, {"alpha": 0.15, "beta": 0.4}),
    "Mish": (18, {}),
    "Gelu": (20, {"approximate": "tanh"}),
    "Elu": (13, {"alpha": 0.5}),
    "Sin": (13, {}),
    "Floor": (13, {}),
}


@pytest.mark.parametrize("op", ONE_NODE)
def test_one_node(op: str, tmp_path: Path) -> None:
    opset, attrs = ONE_NODE[op]
    nodes = [CONV, node(op, ["c"], "x", **attrs), *TAIL]
    same_as_onnxruntime(save(tmp_path / "o.onnx", nodes, {**W, **GEMM}, opset=opset))


@pytest.mark.parametrize(
    "activation",
    [
        nn.PReLU(32),
        nn.LeakyReLU(0.2),
        nn.Sequential(nn.ReLU(), nn.BatchNorm1d(32), nn.ReLU()),
        nn.Hardswish(),
        nn.GELU(),
        Fn(lambda x: torch.cat([torch.max(x[:, :16], x[:, 16:])] * 2, 1)),
    ],
    ids=["prelu", "leaky", "batchnorm", "hardswish", "gelu", "mfm"],
)
@pytest.mark.parametrize("bits", ["w8a8", "w4a4"])
def test_on_vectors(activation: nn.Module, bits: str, tmp_path: Path) -> None:
    module = behind(nn.Linear(64, 32), activation, nn.Linear(32, 16))
    _, parity = check(export(module, tmp_path / "v.onnx"), bits, least=0.8)
    assert parity.executed.products == parity.executed.integer_products


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (8, 8), (4, 1, 8)])
def test_prelu_of_each_place(shape: tuple[int, ...], tmp_path: Path) -> None:
    """As Keras writes it where no axes share slopes."""
    nodes = [CONV, node("PRelu", ["c", "slopes"], "x"), *TAIL]
    path = save(tmp_path / "p.onnx", nodes, {**W, **GEMM, "slopes": abs(array(*shape))})
    same_as_onnxruntime(path)


def test_prelu_of_the_last_axis(tmp_path: Path) -> None:
    """TensorFlow's, where channels are last."""
    nodes = [
        CONV,
        node("Transpose", ["c"], "t", perm=[0, 2, 3, 1]),
        node("Add", ["t", "b"], "s"),
        node("PRelu", ["s", "p"], "r"),
        node("Transpose", ["r"], "x", perm=[0, 3, 1, 2]),
        *TAIL,
    ]
    path = save(tmp_path / "p.onnx", nodes, {**W, **GEMM, "b": array(4), "p": abs(array(1, 1, 4))})
    same_as_onnxruntime(path)
    kinds = [type(m).__name__ for _, m in module_nodes(load_model(path, preprocess="raw").graph)]
    assert kinds == ["Normalize", "Conv2d", "PReLU", "Flatten", "Linear"]
