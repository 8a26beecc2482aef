"""Graphs to plain data and back; what cannot be a graph is refused."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from torch import fx, nn

from efquantface.errors import ModelFileError
from efquantface.graph import ops
from efquantface.graph.graph import (
    INPUT,
    GraphBuilder,
    NodeSpec,
    build,
    output_name,
    specs_of,
)
from random_graphs import crops, graphs


@given(graphs())
def test_a_graph_comes_back_from_json(gm: fx.GraphModule) -> None:
    specs = specs_of(gm)
    stored = json.loads(json.dumps([asdict(spec) for spec in specs]))
    read = [NodeSpec(n["name"], n["kind"], tuple(n["inputs"]), n["attrs"]) for n in stored]
    again = build(read, output_name(gm), "a test", ops.OPERATORS)
    again.load_state_dict(gm.state_dict())
    assert specs_of(again) == specs
    assert torch.equal(again(crops()), gm(crops()))


ARGUMENTS = {
    "normalize": {"mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 2.0]},
    "conv": {
        "in_channels": 2, "out_channels": 4, "kernel_size": (3, 1), "stride": (2, 1),
        "padding": (1, 0), "dilation": (1, 1), "groups": 2,
    },
    "linear": {"in_features": 2, "out_features": 3},
    "affine": {"channels": 2},
    "prelu": {"channels": 2},
    "clamp": {"low": None, "high": 6.0},
    "pad": {"channels": 1, "top": 0, "bottom": 2, "left": 3, "right": 4},
    "maxpool": {"kernel_size": (3, 2), "stride": (2, 2), "padding": (1, 0), "ceil_mode": True},
    "avgpool": {
        "kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1), "ceil_mode": False,
        "count_include_pad": False,
    },
    "reshape": {"shape": (2, 3)},
    "transpose": {"order": (0, 2, 1)},
    "slice": {"axis": 1, "start": 2, "stop": 5},
    "pick": {"axis": 1, "indices": (2, 1, 0)},
    "function": {"function": "elu", "value": 0.5},
    "reduce": {"reduction": "mean", "axes": (1, 2), "keep": False},
    "standardize": {"groups": 4, "eps": 1e-5},
    "concat": {"axis": 1},
    "layernorm": {"features": 4, "eps": 1e-6},
    "l2normalize": {"eps": 1e-12},
    "scale": {"shape": (4, 1)},
    "shift": {"shape": (4,)},
}  # fmt: skip


@pytest.mark.parametrize("kind", ops.OPERATORS)
def test_an_operator_gives_its_arguments(kind: str) -> None:
    wanted = ARGUMENTS.get(kind, {})
    assert ops.OPERATORS[kind](**wanted).attrs() == wanted


def test_what_is_no_operator_has_no_plain_form() -> None:
    builder = GraphBuilder()
    gm = builder.finish(builder.add("tanh", nn.Tanh(), INPUT))
    with pytest.raises(KeyError, match="Tanh"):
        specs_of(gm)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (NodeSpec("a", "no such", (INPUT,)), "kind 'no such' .* is not known"),
        (NodeSpec("a", "add", (INPUT, "later")), "reads .*later"),
        (NodeSpec("a", "affine", (INPUT,), {"width": 3}), "cannot be built"),
        (NodeSpec("not plain", "add", (INPUT, INPUT)), "used twice or not plain"),
        (NodeSpec("b", "add", (INPUT, INPUT)), "output 'a' is not a node"),
    ],
)
def test_bad_plain_data(spec: NodeSpec, message: str) -> None:
    with pytest.raises(ModelFileError, match=f"m.safetensors: .*{message}"):
        build([spec], "a", "m.safetensors", ops.OPERATORS)
