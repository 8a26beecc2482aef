"""ONNX files to canonical graphs: our own importer, with every problem named in one error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import fx

from efquantface.errors import ModelFileError, UnsupportedOperatorError
from efquantface.graph import ops
from efquantface.graph.graph import INPUT, GraphBuilder
from efquantface.importers.onnx.context import Context, NotCanonical, Operands
from efquantface.importers.onnx.facts import OnnxFacts, facts_of
from efquantface.importers.onnx.handlers import HANDLERS
from efquantface.importers.onnx.patterns import fuse_patterns
from efquantface.importers.onnx.proto import (
    NotConstant,
    constants_of,
    embedding_output,
    fold,
    image_input,
    load_proto,
    opset,
    quantized_operators,
)


@dataclass(frozen=True)
class ImportedOnnx:
    """A canonical graph over the file's own input, and what the file says about itself.

    Attributes:
        names: of the file's values: the graph's node that gives each.
        moved: place of the batch in the file's values where it is not in front.
    """

    graph: fx.GraphModule
    facts: OnnxFacts
    names: dict[str, str]
    moved: dict[str, int]


def import_onnx(path: Path) -> ImportedOnnx:
    """Read an ONNX face-recognition network as a trainable canonical graph.

    The graph takes the file's own float input (N,3,H,W) and gives (N,D); any batch that was baked
    into the file is freed.

    Raises:
        ModelFileError: not a network with one image input and one embedding output, values that
            are not finite, or already quantized.
        UnsupportedOperatorError: naming every node that has no canonical form.
    """
    return import_proto(load_proto(path), path)


def import_proto(model: onnx.ModelProto, path: Path) -> ImportedOnnx:
    """Like :func:`import_onnx`, for a model already in memory; ``path`` is named in errors."""
    quantized = quantized_operators(model)
    if quantized:
        raise ModelFileError(
            f"{path}: is already quantized ({', '.join(quantized)}); compress the float network "
            "that it was made from"
        )
    constants = constants_of(model)
    for name, value in constants.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ModelFileError(f"{path}: weight {name!r} holds values that are not finite")
    source, (height, width) = image_input(model, path)
    output = embedding_output(model, path)
    builder = GraphBuilder()
    context = Context(builder, {INPUT: torch.zeros(1, 3, height, width)}, constants)
    context.names[source] = INPUT
    _import_nodes(model, context, opset(model), output, path)

    if output not in context.names:
        raise ModelFileError(f"{path}: the output {output!r} does not depend on the input")
    result = context.names[output]
    shape = tuple(context.examples[result].shape)
    if len(shape) == 4 and shape[2:] == (1, 1):
        result = context.add(f"{output}_flatten", ops.Flatten(), result)
        shape = shape[:2]
    if len(shape) != 2 or shape[0] != 1:
        raise ModelFileError(
            f"{path}: the output {output!r} has shape {shape}, not one embedding a face (N, D)"
        )
    facts = facts_of(model, source, output, (height, width), shape[1])
    return ImportedOnnx(builder.finish(result), facts, context.names, context.moved)


def _import_nodes(
    model: onnx.ModelProto, context: Context, version: int, output: str, path: Path
) -> None:
    """Run every node's handler; nodes with constant inputs only are folded."""
    problems: list[str] = []
    unknown: set[str] = set()
    nodes = fuse_patterns(list(model.graph.node), {output}, context.constants)
    for node in nodes:
        used = [i for i in node.input if i]
        if any(i in unknown for i in used):
            # still name operators that are unknown in themselves
            if node.op_type not in HANDLERS:
                problems.append(f"{node.op_type} {node.name!r}")
            unknown.update(node.output)
            continue
        try:
            if (
                node.op_type == "Shape"
                and used[0] in context.names
                and used[0] not in context.moved
            ):
                shape = context.examples[context.names[used[0]]].shape
                context.constants[node.output[0]] = np.asarray(shape, np.int64)
            elif all(i in context.constants for i in used):
                context.constants |= fold(node, context.constants, model)
            elif node.op_type in HANDLERS:
                attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                operands = Operands(node, context, attrs, version)
                found = HANDLERS[node.op_type](operands)
                results = [found] if isinstance(found, str) else found
                context.names.update(zip(node.output, results, strict=False))
            else:
                raise NotCanonical("")
        except (NotCanonical, NotConstant) as error:
            reason = f" ({error})" if str(error) else ""
            problems.append(f"{node.op_type} {node.name!r}{reason}")
            unknown.update(node.output)
    if problems:
        raise UnsupportedOperatorError(
            f"{path}: {len(problems)} nodes are not supported: " + "; ".join(problems)
        )
