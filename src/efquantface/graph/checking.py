"""Whether the parts of a checkpoint fit together, checked before anything large is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from efquantface.contract import FaceContract
from efquantface.errors import ModelFileError
from efquantface.graph.footprint import check_result
from efquantface.graph.graph import NodeSpec, build
from efquantface.graph.ops import Vocabulary

_LARGEST = 1 << 24  # whole number in an attribute (channels, sizes, indices), at most
_FLOAT = 3.4e38  # float32, at most
_BITS = range(2, 9)
_SHOWN = 4


def specs_from(nodes: Any, where: str) -> list[NodeSpec]:
    """From plain-data nodes to specs. Types and numbers are checked.

    Raises:
        ModelFileError: a node is malformed; ``where`` and the node are named.
    """
    if not isinstance(nodes, list):
        raise ModelFileError(f"{where}: the stored graph is no list of nodes")
    return [_spec(node, number, where) for number, node in enumerate(nodes)]


def check_weights(
    specs: Sequence[NodeSpec],
    output: str,
    tensors: Mapping[str, Tensor],
    vocabulary: Vocabulary,
    where: str,
) -> None:
    """Build the graph without memory for its weights, and compare shapes and types with the file's.

    Raises:
        ModelFileError: the graph cannot be built, or weights are missing, unexpected, or of another
            shape or type.
    """
    try:
        with torch.device("meta"):
            graph = build(specs, output, where, vocabulary)
    except (AttributeError, KeyError, IndexError, ArithmeticError, AssertionError) as error:
        raise ModelFileError(f"{where}: the stored graph cannot be built ({error})") from None
    _compare(graph, tensors, where)


def check_runs(graph: fx.GraphModule, contract: FaceContract, where: str) -> None:
    """Follow the shapes of one crop through a graph.

    Raises:
        ModelFileError: an operator cannot read its input, or its result is too large. Or the graph does
            not give one embedding of the contract's size.
    """
    walk = _Walk(graph)
    try:
        with torch.no_grad():
            result = walk.run(torch.zeros(1, 3, contract.height, contract.width))
    except Exception as error:  # operators raise many kinds for an input that does not fit
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ModelFileError(f"{where}: {walk.at} does not take what it reads ({reason})") from None
    if tuple(result.shape) != (1, contract.embedding_size):
        raise ModelFileError(
            f"{where}: gives {tuple(result.shape)} for a crop, the contract says embeddings of "
            f"{contract.embedding_size} values"
        )


class _Walk(fx.Interpreter):
    """Runs a graph node by node and remembers the current node."""

    at = "the graph"

    def run_node(self, n: fx.Node) -> Any:
        self.at = str(n.target)
        if n.op == "call_module":
            inputs, _ = self.fetch_args_kwargs_from_env(n)
            check_result(self.module.get_submodule(self.at), *inputs)
        return super().run_node(n)


def _compare(graph: fx.GraphModule, tensors: Mapping[str, Tensor], where: str) -> None:
    wanted = graph.state_dict()
    missing, unexpected = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or unexpected:
        raise ModelFileError(
            f"{where}: weights missing {missing[:_SHOWN]}, unexpected {unexpected[:_SHOWN]}"
        )
    for name, tensor in wanted.items():
        given = tensors[name]
        if given.shape != tensor.shape or given.dtype != tensor.dtype:
            raise ModelFileError(
                f"{where}: {name} is {_told(given)}, its operator has {_told(tensor)}"
            )


def _told(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _spec(node: Any, number: int, where: str) -> NodeSpec:
    try:
        name, kind, inputs, attrs = node["name"], node["kind"], node["inputs"], node["attrs"]
        if not (isinstance(name, str) and isinstance(kind, str) and isinstance(attrs, dict)):
            raise TypeError("a value of another type")
        if not (isinstance(inputs, list) and all(isinstance(i, str) for i in inputs)):
            raise TypeError("inputs are no list of names")
        for key, value in attrs.items():
            _check_attribute(key, value)
    except (TypeError, KeyError, ValueError) as error:
        raise ModelFileError(f"{where}: node {number} of the stored graph ({error})") from None
    return NodeSpec(name, kind, tuple(inputs), attrs)


def _check_attribute(key: str, value: Any, depth: int = 0) -> None:
    """Check that an attribute is a number, a text or a list of them, and that numbers are in range.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, list) and depth < 2:
        for item in value:
            _check_attribute(key, item, depth + 1)
    elif isinstance(value, bool) or value is None or isinstance(value, str):
        if key == "bits":
            raise ValueError(f"bits is {value!r}")
    elif isinstance(value, int):
        if abs(value) > _LARGEST or (key == "bits" and value not in _BITS):
            raise ValueError(f"{key} is {value if abs(value) < 1 << 64 else 'huge'}")
    elif not isinstance(value, float) or not abs(value) < _FLOAT or key == "bits":
        raise ValueError(f"{key} is {type(value).__name__}, not a finite number or a list")
