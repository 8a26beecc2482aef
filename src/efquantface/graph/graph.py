"""Canonical graphs: a ``torch.fx`` graph over the operators of :mod:`ops`, and its plain-data form.

The plain-data form (a list of :class:`NodeSpec`, stored as JSON beside the weights in a safetensors
file) is how every network is kept on disk: no code, no pickle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from efquantface.errors import ModelFileError
from efquantface.graph import islands
from efquantface.graph.ops import (
    Add,
    Affine,
    Clamp,
    Flatten,
    GlobalAvgPool,
    Multiply,
    Normalize,
    PReLU,
    ZeroPad,
)

INPUT = "pixels"


@dataclass(frozen=True)
class NodeSpec:
    """One operator of a graph: a unique name, its kind, the names it reads, its attributes."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OpKind:
    """How one kind of operator becomes data and back."""

    module: type[nn.Module]
    attrs: Callable[[Any], dict[str, Any]]
    make: Callable[..., nn.Module]


def conv_attrs(m: Any) -> dict[str, Any]:
    """Configuration of a convolution, float or quantized."""
    return {
        "in_channels": m.in_channels,
        "out_channels": m.out_channels,
        "kernel_size": list(m.kernel_size),
        "stride": list(m.stride),
        "padding": list(m.padding),
        "dilation": list(m.dilation),
        "groups": m.groups,
    }


def pool_attrs(m: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    """Configuration of a pooling, its sizes as pairs."""
    return {
        "kernel_size": _pair(m.kernel_size),
        "stride": _pair(m.stride),
        "padding": _pair(m.padding),
        "ceil_mode": m.ceil_mode,
    }


def _pair(value: Any) -> list[int]:
    return [int(v) for v in value] if isinstance(value, tuple | list) else [int(value)] * 2


def tuples(attrs: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists back to the tuples that PyTorch's modules take."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in attrs.items()}


KINDS: dict[str, OpKind] = {
    "normalize": OpKind(
        Normalize, lambda m: {"mean": m.mean.tolist(), "std": m.std.tolist()}, Normalize
    ),
    "conv": OpKind(nn.Conv2d, conv_attrs, lambda **a: nn.Conv2d(**tuples(a))),
    "linear": OpKind(
        nn.Linear,
        lambda m: {"in_features": m.in_features, "out_features": m.out_features},
        nn.Linear,
    ),
    "affine": OpKind(Affine, lambda m: {"channels": m.channels}, Affine),
    "prelu": OpKind(PReLU, lambda m: {"channels": m.channels}, PReLU),
    "clamp": OpKind(Clamp, lambda m: {"low": m.low, "high": m.high}, Clamp),
    "add": OpKind(Add, lambda m: {}, Add),
    "multiply": OpKind(Multiply, lambda m: {}, Multiply),
    "sigmoid": OpKind(nn.Sigmoid, lambda m: {}, nn.Sigmoid),
    "pad": OpKind(
        ZeroPad,
        lambda m: {k: getattr(m, k) for k in ("channels", "top", "bottom", "left", "right")},
        ZeroPad,
    ),
    "maxpool": OpKind(nn.MaxPool2d, pool_attrs, lambda **a: nn.MaxPool2d(**tuples(a))),
    "avgpool": OpKind(
        nn.AvgPool2d,
        lambda m: {**pool_attrs(m), "count_include_pad": m.count_include_pad},
        lambda **a: nn.AvgPool2d(**tuples(a)),
    ),
    "globalavgpool": OpKind(GlobalAvgPool, lambda m: {}, GlobalAvgPool),
    "flatten": OpKind(Flatten, lambda m: {}, Flatten),
    "reshape": OpKind(islands.Reshape, lambda m: {"shape": list(m.shape)}, islands.Reshape),
    "transpose": OpKind(islands.Transpose, lambda m: {"order": list(m.order)}, islands.Transpose),
    "slice": OpKind(
        islands.Slice,
        lambda m: {"axis": m.axis, "start": m.start, "stop": m.stop},
        islands.Slice,
    ),
    "concat": OpKind(islands.Concat, lambda m: {"axis": m.axis}, islands.Concat),
    "layernorm": OpKind(
        islands.LayerNorm,
        lambda m: {"features": m.features, "eps": m.eps},
        islands.LayerNorm,
    ),
    "gelu": OpKind(islands.Gelu, lambda m: {}, islands.Gelu),
    "softmax": OpKind(islands.Softmax, lambda m: {}, islands.Softmax),
    "l2normalize": OpKind(islands.L2Normalize, lambda m: {"eps": m.eps}, islands.L2Normalize),
    "matmul": OpKind(islands.MatMul, lambda m: {}, islands.MatMul),
    "scale": OpKind(islands.Scale, lambda m: {"shape": list(m.weight.shape)}, islands.Scale),
    "shift": OpKind(islands.Shift, lambda m: {"shape": list(m.bias.shape)}, islands.Shift),
}


def kind_of(module: nn.Module) -> str:
    """The kind of an operator's module (exact type).

    Raises:
        KeyError: for a module outside the vocabulary.
    """
    for kind, entry in KINDS.items():
        if type(module) is entry.module:
            return kind
    raise KeyError(type(module).__name__)


def safe_name(name: str) -> str:
    """A name usable as module attribute and fx node: letters, digits and underscores."""
    cleaned = re.sub(r"\W+", "_", name).strip("_") or "node"
    return f"n_{cleaned}" if cleaned[0].isdigit() else cleaned


def free_name(root: nn.Module, name: str) -> str:
    """``name``, cleaned and with a counter where ``root`` already has it."""
    base = unique = safe_name(name)
    count = 1
    while hasattr(root, unique) or unique == INPUT:
        count += 1
        unique = f"{base}_{count}"
    return unique


def name_of(node: fx.Node) -> str:
    """The name of an operator in the plain-data form: its module's attribute name."""
    return str(node.target) if node.op == "call_module" else INPUT


class GraphBuilder:
    """Adds operators one by one and returns the canonical graph."""

    def __init__(self) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.nodes: dict[str, fx.Node] = {INPUT: self.graph.placeholder(INPUT)}

    def add(self, name: str, module: nn.Module, *inputs: str) -> str:
        """Append ``module`` reading the named nodes; returns the (cleaned, unique) name."""
        unique = add_module(self.root, name, module)
        self.nodes[unique] = self.graph.call_module(unique, tuple(self.nodes[i] for i in inputs))
        return unique

    def module(self, name: str) -> nn.Module | None:
        """The module of a node that was added, None for the input."""
        found = getattr(self.root, name, None)
        return found if isinstance(found, nn.Module) else None

    def finish(self, output: str) -> fx.GraphModule:
        """Close the graph with its one output, in evaluation mode, dead operators removed."""
        self.graph.output(self.nodes[output])
        return tidy(fx.GraphModule(self.root, self.graph)).eval()


def tidy(gm: fx.GraphModule) -> fx.GraphModule:
    """Drop dead nodes and unused modules, and regenerate the forward code."""
    gm.graph.eliminate_dead_code()
    gm.delete_all_unused_submodules()
    gm.graph.lint()
    gm.recompile()
    return gm


def module_nodes(gm: fx.GraphModule) -> list[tuple[fx.Node, nn.Module]]:
    """Operators in execution order with their modules."""
    return [
        (node, gm.get_submodule(str(node.target)))
        for node in gm.graph.nodes
        if node.op == "call_module"
    ]


def module_of(gm: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module a node calls, or None for the input and the output."""
    return gm.get_submodule(str(node.target)) if node.op == "call_module" else None


def add_module(root: nn.Module, name: str, module: nn.Module) -> str:
    """Give ``root`` a module under :func:`free_name`; returns the name."""
    unique = free_name(root, name)
    root.add_module(unique, module)
    return unique


def insert_after(gm: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> fx.Node:
    """Insert ``module`` on the output of ``node``; every reader of ``node`` reads it instead."""
    unique = add_module(gm, name, module)
    users = list(node.users)
    with gm.graph.inserting_after(node):
        new = gm.graph.call_module(unique, (node,))
    for user in users:
        user.replace_input_with(node, new)
    return new


def specs_of(gm: fx.GraphModule) -> list[NodeSpec]:
    """The plain-data form of a canonical graph.

    Raises:
        KeyError: for a module outside the vocabulary.
    """
    specs = []
    for node, module in module_nodes(gm):
        kind = kind_of(module)
        inputs = tuple(name_of(a) for a in node.args if isinstance(a, fx.Node))
        specs.append(NodeSpec(name_of(node), kind, inputs, KINDS[kind].attrs(module)))
    return specs


def output_node(gm: fx.GraphModule) -> fx.Node:
    """The node that gives the embedding."""
    source = next(n for n in gm.graph.nodes if n.op == "output").args[0]
    assert isinstance(source, fx.Node)
    return source


def output_name(gm: fx.GraphModule) -> str:
    """Name of the node that gives the embedding."""
    return name_of(output_node(gm))


def outputs_of(module: nn.Module) -> int | None:
    """Output channels of a convolution or linear layer, float or quantized; None for others."""
    out = getattr(module, "out_channels", getattr(module, "out_features", None))
    return out if isinstance(out, int) else None


def build(specs: Iterable[NodeSpec], output: str, where: str) -> fx.GraphModule:
    """A graph from its plain-data form, weights still to be loaded.

    Raises:
        ModelFileError: naming ``where``, for an unknown kind, bad attributes or a missing input.
    """
    builder = GraphBuilder()
    for spec in specs:
        entry = KINDS.get(spec.kind)
        if entry is None:
            raise ModelFileError(f"{where}: operator kind {spec.kind!r} ({spec.name}) is not known")
        missing = [i for i in spec.inputs if i not in builder.nodes]
        if missing:
            raise ModelFileError(f"{where}: {spec.name} reads {missing}, which come later or never")
        try:
            module = entry.make(**spec.attrs)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(f"{where}: {spec.name} cannot be built ({error})") from None
        if builder.add(spec.name, module, *spec.inputs) != spec.name:
            raise ModelFileError(f"{where}: the name {spec.name!r} is used twice or not plain")
    if output not in builder.nodes:
        raise ModelFileError(f"{where}: the output {output!r} is not a node of the graph")
    return builder.finish(output)


@torch.no_grad()
def shapes(gm: fx.GraphModule, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """Output shape of every node for one crop, keyed by node name."""
    found: dict[str, tuple[int, ...]] = {}

    class _Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor) and n.op != "output":
                found[name_of(n)] = tuple(result.shape)
            return result

    device = next(gm.parameters()).device
    was_training = gm.training
    gm.eval()
    _Recorder(gm).run(torch.zeros(1, 3, height, width, device=device))
    gm.train(was_training)
    return found
