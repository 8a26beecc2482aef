"""Canonical graphs: a ``torch.fx`` graph over the operators of :mod:`ops`, and its plain-data form.

On disk every network has the plain-data form: a list of :class:`NodeSpec`, stored as JSON beside the
weights in a safetensors file. No code, no pickle.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from efquantface.errors import ModelFileError
from efquantface.graph import ops

INPUT = "pixels"
# names of graph modules, and of the code that torch.fx generates
_TAKEN = {*dir(fx.GraphModule), "self"} - set(dir(nn.Module)) | {"meta"}


@dataclass(frozen=True)
class NodeSpec:
    """One operator of a graph: a unique name, its kind, the names that it reads, its arguments."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    attrs: dict[str, Any] = field(default_factory=dict)


def kind_of(module: nn.Module) -> str:
    """The kind of an operator's module.

    Raises:
        KeyError: the module is no operator.
    """
    if not isinstance(module, ops.Operator):
        raise KeyError(type(module).__name__)
    return module.kind


def safe_name(name: str) -> str:
    """A name for a module attribute and an fx node: letters, digits and underscores.

    A word with a meaning in Python or ``torch.fx`` gets a prefix.

    Example:
        >>> safe_name("conv/1"), safe_name("class"), safe_name("graph")
        ('conv_1', 'n_class', 'n_graph')
    """
    plain = unicodedata.normalize("NFKC", name)  # as Python reads names in code
    cleaned = re.sub(r"\W+", "_", plain).strip("_") or "node"
    taken = cleaned[0].isdigit() or keyword.iskeyword(cleaned) or cleaned in _TAKEN
    return f"n_{cleaned}" if taken else cleaned


def free_name(root: nn.Module, name: str) -> str:
    """``name`` as a safe name, with a counter where ``root`` has it already."""
    base = unique = safe_name(name)
    count = 1
    while hasattr(root, unique) or unique == INPUT:
        count += 1
        unique = f"{base}_{count}"
    return unique


def name_of(node: fx.Node) -> str:
    """The name of an operator in the plain-data form: the attribute name of its module."""
    return str(node.target) if node.op == "call_module" else INPUT


class GraphBuilder:
    """Adds operators one by one and returns the canonical graph."""

    def __init__(self) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.nodes: dict[str, fx.Node] = {INPUT: self.graph.placeholder(INPUT)}

    def add(self, name: str, module: nn.Module, *inputs: str) -> str:
        """Append ``module``, which reads the nodes ``inputs``; returns its safe and unique name."""
        unique = add_module(self.root, name, module)
        self.nodes[unique] = self.graph.call_module(unique, tuple(self.nodes[i] for i in inputs))
        return unique

    def module(self, name: str) -> nn.Module | None:
        """The module of an added node; None for the input."""
        found = getattr(self.root, name, None)
        return found if isinstance(found, nn.Module) else None

    def source(self, name: str) -> str | None:
        """The first input of an added node; None for the graph's input."""
        inputs = self.nodes[name].all_input_nodes
        return name_of(inputs[0]) if inputs else None

    def finish(self, output: str) -> fx.GraphModule:
        """The finished graph with this output, in evaluation mode, without dead operators."""
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
    """The module that a node calls; None for the input and the output."""
    return gm.get_submodule(str(node.target)) if node.op == "call_module" else None


def add_module(root: nn.Module, name: str, module: nn.Module) -> str:
    """Add a module to ``root`` under :func:`free_name`; returns the name."""
    unique = free_name(root, name)
    root.add_module(unique, module)
    return unique


def insert_after(gm: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> fx.Node:
    """Insert ``module`` behind ``node``. All readers of ``node`` read the new node instead."""
    unique = add_module(gm, name, module)
    users = list(node.users)
    with gm.graph.inserting_after(node):
        new = gm.graph.call_module(unique, (node,))
    for user in users:
        user.replace_input_with(node, new)
    return new


def skip(gm: fx.GraphModule, node: fx.Node) -> None:
    """Remove a node. Its readers read its first input instead."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    node.replace_all_uses_with(source)
    gm.graph.erase_node(node)


def specs_of(gm: fx.GraphModule) -> list[NodeSpec]:
    """The plain-data form of a canonical graph.

    Raises:
        KeyError: a module is no operator.
    """
    specs = []
    for node, module in module_nodes(gm):
        if not isinstance(module, ops.Operator):
            raise KeyError(type(module).__name__)
        inputs = tuple(name_of(a) for a in node.args if isinstance(a, fx.Node))
        specs.append(NodeSpec(name_of(node), module.kind, inputs, module.attrs()))
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


def build(
    specs: Iterable[NodeSpec], output: str, where: str, vocabulary: ops.Vocabulary
) -> fx.GraphModule:
    """A graph from its plain-data form, without loaded weights.

    Args:
        specs: in execution order.
        output: name of the node that gives the embedding.
        where: the file, for errors.
        vocabulary: the operators that the graph may hold.

    Raises:
        ModelFileError: a kind is unknown, attributes are wrong, or an input is missing; ``where`` is
            named.
    """
    builder = GraphBuilder()
    for spec in specs:
        operator = vocabulary.get(spec.kind)
        if operator is None:
            raise ModelFileError(f"{where}: operator kind {spec.kind!r} ({spec.name}) is not known")
        missing = [i for i in spec.inputs if i not in builder.nodes]
        if missing:
            raise ModelFileError(f"{where}: {spec.name} reads {missing}, which come later or never")
        try:
            module = operator(**_tuples(spec.attrs))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(f"{where}: {spec.name} cannot be built ({error})") from None
        if builder.add(spec.name, module, *spec.inputs) != spec.name:
            raise ModelFileError(f"{where}: the name {spec.name!r} is used twice or not plain")
    if output not in builder.nodes:
        raise ModelFileError(f"{where}: the output {output!r} is not a node of the graph")
    return builder.finish(output)


@torch.no_grad()
def shapes(gm: fx.GraphModule, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """Output shapes of all nodes for one crop, by node name."""
    found: dict[str, tuple[int, ...]] = {}

    class _Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor) and n.op != "output":
                found[name_of(n)] = tuple(result.shape)
            return result

    device = next(gm.parameters(), torch.zeros(())).device
    was_training = gm.training
    gm.eval()
    _Recorder(gm).run(torch.zeros(1, 3, height, width, device=device))
    gm.train(was_training)
    return found


def _tuples(attrs: dict[str, Any]) -> dict[str, Any]:
    """From JSON's lists to the tuples that PyTorch's modules take."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in attrs.items()}
