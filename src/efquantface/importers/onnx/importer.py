"""From ONNX files to canonical graphs. One error names all problems of a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx

from efquantface.errors import ModelFileError, UnsupportedOperatorError
from efquantface.graph import ops
from efquantface.graph.graph import INPUT, GraphBuilder
from efquantface.importers.onnx.batches import Batches
from efquantface.importers.onnx.channels_last import channels_first
from efquantface.importers.onnx.checked import MISFITS, misfit, reading
from efquantface.importers.onnx.context import Context, NotCanonical, Operands
from efquantface.importers.onnx.facts import (
    OnnxFacts,
    embedding_output,
    facts_of,
    stored_size,
)
from efquantface.importers.onnx.folding import NotConstant, fold
from efquantface.importers.onnx.handlers import HANDLERS
from efquantface.importers.onnx.image_input import image_input
from efquantface.importers.onnx.patterns import fuse_patterns
from efquantface.importers.onnx.pixels import Pixels
from efquantface.importers.onnx.places import Place
from efquantface.importers.onnx.proto import (
    candidates,
    constants_of,
    load_proto,
    opset,
    quantized_operators,
)
from efquantface.importers.onnx.sizes import Probe, Size, settle
from efquantface.importers.onnx.views import grey
from efquantface.runtime.feeding import LUMA

_WEIGHTED = ("Conv", "Gemm", "MatMul")
# handled here, without a handler
_KNOWN = ("Shape", "Size", "If", "Constant", "ConstantOfShape", "Range")
_ENDS = ("Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity", "Cast", "Dropout")


@dataclass(frozen=True)
class ImportedOnnx:
    """A canonical graph over the file's own input, and what the file says about itself.

    Attributes:
        names: the graph's node for each value of the file, by the value's name.
        moved: the place of the batch in values of the file where it is not the first axis.
    """

    graph: fx.GraphModule
    facts: OnnxFacts
    names: dict[str, str]
    moved: dict[str, Place]


def import_onnx(path: Path, size: Size | None = None) -> ImportedOnnx:
    """Read an ONNX face-recognition network as a trainable canonical graph.

    The graph takes the file's input as float32 (N,3,H,W) and gives (N,D), also where the file has
    another order of axes. A fixed batch of the file becomes an open one.

    Args:
        path: the file.
        size: height and width of crops, for files that leave them open.

    Raises:
        ModelFileError: the file is no network with one image input and one embedding output, holds
            values that are not finite, or is already quantized.
        ContractError: the file takes crops of another size.
        UnsupportedOperatorError: nodes have no canonical form; all are named.
    """
    return import_proto(load_proto(path), path, size)


def import_proto(model: onnx.ModelProto, path: Path, size: Size | None = None) -> ImportedOnnx:
    """Like :func:`import_onnx`, for a model in memory. Errors name ``path``."""
    with reading(path):
        return _imported(model, path, size)


def _imported(model: onnx.ModelProto, path: Path, size: Size | None) -> ImportedOnnx:
    quantized = quantized_operators(model)
    if quantized:
        raise ModelFileError(
            f"{path}: is already quantized ({', '.join(quantized)}); compress the float network "
            "that it was made from"
        )
    for name, value in constants_of(model).items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ModelFileError(f"{path}: weight {name!r} holds values that are not finite")
    image, outputs = image_input(model, path), candidates(model, path)
    probe = Probe(path, model, image)
    settled = settle(probe, outputs, size or stored_size(model, image))
    output = embedding_output(probe, outputs, settled.size)
    turned: set[str] = set()
    source = model
    if image.layout.last:
        source, turned = channels_first(model, image.name)
    builder = GraphBuilder()
    example = torch.zeros(1, 3, *settled.size)
    context = Context(builder, {INPUT: example}, constants_of(source))
    context.single = image.layout.batch == 1
    pixels = Pixels(context)
    if image.layout.channels == 1:
        pixels.views[image.name] = grey(context, INPUT, LUMA)
    else:
        context.names[image.name] = INPUT
        pixels.images.add(image.name)
    shared = _import_nodes(source, context, pixels, output, path)

    pixels.settle(output)
    if output not in context.names:
        raise ModelFileError(f"{path}: the output {output!r} does not depend on the input")
    result = context.names[output]
    shape = tuple(context.examples[result].shape)
    place = context.place(output)
    in_front = place.axis <= 0 and place.outer == 1  # for one crop (D,) is fine, too
    if prod(shape[1:]) != max(shape[1:], default=0) or not in_front:
        raise ModelFileError(
            f"{path}: the output {output!r} has shape {shape}, not one embedding a face (N, D)"
        )
    if len(shape) != 2:
        result = context.add(f"{output}_flatten", ops.Flatten(), result)
    facts = facts_of(model, image, output, settled, max(shape[1:]))
    if shared:
        note = (
            f"{shared} layers are applied to a crop more than once (to its mirror image?); the student "
            "holds them as often"
        )
        facts = replace(facts, notes=(*facts.notes, note))
    names = {name: node for name, node in context.names.items() if name not in turned}
    return ImportedOnnx(builder.finish(result), facts, names, context.moved)


def _import_nodes(
    model: onnx.ModelProto, context: Context, pixels: Pixels, output: str, path: Path
) -> int:
    """Run the handlers of all nodes. Nodes of constants are folded.

    Returns:
        How many layers read weights that another layer reads, too.
    """
    problems: list[str] = []
    unknown: set[str] = set()
    weights: Counter[str] = Counter()
    fused = fuse_patterns(list(model.graph.node), {output}, context.constants)
    ends = _end_moves(fused, output)
    batches = Batches(context, pixels)
    for node in batches.spread(fused):
        used = [i for i in node.input if i]
        if any(i in unknown for i in used):
            # still name operators that no file could have
            if node.op_type not in HANDLERS and node.op_type not in _KNOWN:
                problems.append(f"{node.op_type} {node.name!r}")
            unknown.update(node.output)
            continue
        try:
            _import_node(model, node, used, context, pixels)
        except (NotCanonical, NotConstant, *MISFITS) as error:
            if node.output[0] in ends and used[0] in context.names:
                context.names[node.output[0]] = context.names[used[0]]
                continue  # the embedding is flattened in the end
            told = misfit(error) if isinstance(error, MISFITS) else str(error)
            reason = f" ({told})" if told else ""
            problems.append(f"{node.op_type} {node.name!r}{reason}")
            unknown.update(node.output)
        if (
            node.output[0] in ends
            and node.output[0] in context.moved
            and not (used[0] in context.moved or used[0] not in context.names)
        ):  # (D,) of one crop: the batch is left out, not moved
            context.names[node.output[0]] = context.names[used[0]]
            del context.moved[node.output[0]]
        if node.op_type in _WEIGHTED and len(used) > 1:
            weights[used[1]] += 1
    if problems:
        raise UnsupportedOperatorError(
            f"{path}: {len(problems)} nodes are not supported: " + "; ".join(problems)
        )
    return sum(count - 1 for name, count in weights.items() if name in context.constants)


def _import_node(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    used: list[str],
    context: Context,
    pixels: Pixels,
) -> None:
    """Import one node.

    Raises:
        NotCanonical, NotConstant: the node has no canonical form.
    """
    attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    operands = Operands(node, context, attrs, opset(model))
    if pixels.read(operands):
        return
    shape = pixels.shape(used[0]) if node.op_type == "Shape" else None
    if shape is not None:
        context.constants[node.output[0]] = np.asarray(shape, np.int64)
        return
    for name in used:
        pixels.settle(name)
    if node.op_type == "Shape" and used[0] in context.names:
        shape = context.file_shape(used[0])[attrs.get("start", 0) : attrs.get("end")]
        context.constants[node.output[0]] = np.asarray(shape, np.int64)
    elif node.op_type == "Size" and used[0] in context.names:
        context.constants[node.output[0]] = np.asarray(prod(context.file_shape(used[0])), np.int64)
    elif node.op_type == "If" and used[0] in context.constants:
        _import_branch(model, node, attrs, context, pixels)
    elif all(i in context.constants for i in used):
        context.constants |= fold(node, context.constants, model)
    elif node.op_type in HANDLERS:
        found = HANDLERS[node.op_type](operands)
        results = [found] if isinstance(found, str) else found
        context.names.update(zip(node.output, results, strict=False))
        pixels.follow(node)
    else:
        raise NotCanonical("")


def _import_branch(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    attrs: dict[str, Any],
    context: Context,
    pixels: Pixels,
) -> None:
    """Import the branch of an If that is taken for all crops."""
    taken = bool(context.constants[node.input[0]].reshape(-1)[0])
    branch = attrs["then_branch" if taken else "else_branch"]
    context.constants.update({i.name: onnx.numpy_helper.to_array(i) for i in branch.initializer})
    for inner in branch.node:
        _import_node(model, inner, [i for i in inner.input if i], context, pixels)
    for name, result in zip(node.output, branch.output, strict=True):
        if result.name in context.constants:
            context.constants[name] = context.constants[result.name]
        else:
            context.names[name] = context.names[result.name]
            context.put(name, context.place(result.name))


def _end_moves(nodes: list[onnx.NodeProto], output: str) -> set[str]:
    """Values between the computed embedding and the output, which differ only in their axes."""
    makers = {name: node for node in nodes for name in node.output}
    found: set[str] = set()
    while output in makers and makers[output].op_type in _ENDS:
        found.add(output)
        output = makers[output].input[0]
    return found
