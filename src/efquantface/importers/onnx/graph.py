"""ONNX files to canonical graphs: our own importer, with every problem named in one error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import fx

from efquantface.errors import ModelFileError, UnsupportedOperatorError
from efquantface.graph.graph import INPUT, GraphBuilder
from efquantface.graph.ops import Flatten
from efquantface.importers.onnx.context import Context, NotCanonical, Operands
from efquantface.importers.onnx.operators import HANDLERS
from efquantface.importers.onnx.patterns import fuse_patterns

_QUANTIZED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "QGemm"),
    *("MatMulInteger", "MatMulNBits", "QLinearConv", "QLinearMatMul"),
)
_FLOAT_INPUTS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_LEAST_EMBEDDING = 16  # an output of fewer values is something else: a norm, a quality score
DEFAULT_SIZE = 112


@dataclass(frozen=True)
class OnnxFacts:
    """What an ONNX file says about itself.

    Attributes:
        front: (mean, std) of the normalization that the graph starts with; (0, 1) where none.
        node_names: names of all nodes, in order.
    """

    height: int
    width: int
    embedding_size: int
    input_name: str
    output_name: str
    front: tuple[float, float]
    node_names: tuple[str, ...]
    metadata: dict[str, str]


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


def load_proto(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file without running anything.

    Raises:
        ModelFileError: the file is missing, empty, truncated or not ONNX.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file")
    try:
        model = onnx.load(str(path))
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        raise ModelFileError(f"{path}: not a readable ONNX file ({error})") from None
    if not model.graph.node:
        raise ModelFileError(f"{path}: holds no network (an ONNX file without nodes)")
    return model


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


def quantized_operators(model: onnx.ModelProto) -> list[str]:
    """Types of the operators that only quantized files have; empty for a float network."""
    return sorted({n.op_type for n in model.graph.node if n.op_type in _QUANTIZED})


def import_proto(model: onnx.ModelProto, path: Path) -> ImportedOnnx:
    """Like :func:`import_onnx`, for a model already in memory; ``path`` is named in errors."""
    graph = model.graph
    quantized = quantized_operators(model)
    if quantized:
        raise ModelFileError(
            f"{path}: is already quantized ({', '.join(quantized)}); compress the float network "
            "that it was made from"
        )
    opset = _opset(model)
    constants = _constants(model)
    for name, value in constants.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ModelFileError(f"{path}: weight {name!r} holds values that are not finite")
    inputs = [i for i in graph.input if i.name not in constants]
    height, width = _input_size(inputs, path)
    output = embedding_output(model, path)
    builder = GraphBuilder()
    context = Context(builder, {INPUT: torch.zeros(1, 3, height, width)}, constants)
    context.names[inputs[0].name] = INPUT
    _import_nodes(model, context, opset, output, path)

    if output not in context.names:
        raise ModelFileError(f"{path}: the output {output!r} does not depend on the input")
    result = context.names[output]
    shape = tuple(context.examples[result].shape)
    if len(shape) == 4 and shape[2:] == (1, 1):
        result = context.add(f"{output}_flatten", Flatten(), result)
        shape = shape[:2]
    if len(shape) != 2 or shape[0] != 1:
        raise ModelFileError(
            f"{path}: the output {output!r} has shape {shape}, not one embedding a face (N, D)"
        )
    facts = _facts(model, inputs[0].name, output, (height, width), shape[1])
    return ImportedOnnx(builder.finish(result), facts, context.names, context.moved)


def read_facts(path: Path) -> OnnxFacts:
    """What a file says about itself, also where it holds operators that cannot be imported.

    Raises:
        ModelFileError: not a network with one image input and one embedding output.
    """
    model = load_proto(path)
    constants = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    size = _input_size(inputs, path)
    output = embedding_output(model, path)
    width = _width(next(o for o in model.graph.output if o.name == output))
    return _facts(model, inputs[0].name, output, size, width or 1)


def embedding_output(model: onnx.ModelProto, path: Path) -> str:
    """The output that is an embedding; norms and quality scores beside it are left alone.

    Raises:
        ModelFileError: several outputs could be it, or none.
    """
    outputs = list(model.graph.output)
    if len(outputs) > 1:
        outputs = [o for o in outputs if _width(o) is None or (_width(o) or 0) >= _LEAST_EMBEDDING]
        declared = [o for o in outputs if _width(o)]
        outputs = declared if len(declared) == 1 else outputs
    if len(outputs) != 1:
        names = [o.name for o in model.graph.output]
        raise ModelFileError(
            f"{path}: has outputs {names}; one embedding is expected. Keep one of them: "
            "onnx.utils.extract_model(FILE, NEW_FILE, [INPUT], [OUTPUT])"
        )
    return str(outputs[0].name)


def _width(output: onnx.ValueInfoProto) -> int | None:
    """Values a face of an output (N, D) or (N, D, 1, 1); 0 for other shapes, None if not said."""
    if not output.type.tensor_type.HasField("shape"):
        return None
    dims = [d.dim_value for d in output.type.tensor_type.shape.dim]
    if len(dims) == 2 or (len(dims) == 4 and dims[2:] == [1, 1]):
        return dims[1] or None
    return 0


def _constants(model: onnx.ModelProto) -> dict[str, Any]:
    """Initializers, half precision as float32: all arithmetic here is float32."""
    return {i.name: _single(numpy_helper.to_array(i)) for i in model.graph.initializer}


def _single(value: Any) -> Any:
    array = np.asarray(value)
    half = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if half else array


def _opset(model: onnx.ModelProto) -> int:
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _facts(
    model: onnx.ModelProto, source: str, output: str, size: tuple[int, int], width: int
) -> OnnxFacts:
    return OnnxFacts(
        height=size[0],
        width=size[1],
        embedding_size=width,
        input_name=source,
        output_name=output,
        front=_front(model, source, size, _opset(model)),
        node_names=tuple(n.name for n in model.graph.node),
        metadata={p.key: p.value for p in model.metadata_props},
    )


_FRONT_OPS = ("Sub", "Add", "Mul", "Div", "BatchNormalization", "Identity", "Constant")


def _front(
    model: onnx.ModelProto, source: str, size: tuple[int, int], opset: int
) -> tuple[float, float]:
    """(mean, std) in the input's own units that the first nodes' constants amount to."""
    context = Context(
        GraphBuilder(),
        {INPUT: torch.zeros(1, 3, *size)},
        _constants(model),
    )
    context.names[source] = last = INPUT
    for node in model.graph.node:
        if node.op_type not in _FRONT_OPS:
            break
        try:
            if all(i in context.constants for i in node.input if i):
                _fold(node, context, model)
                continue
            attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            found = HANDLERS[node.op_type](Operands(node, context, attrs, opset))
            assert isinstance(found, str)  # none of these operators has several outputs
            context.names[node.output[0]] = last = found
        except NotCanonical:
            break
    if last == INPUT:
        return 0.0, 1.0
    graph = context.builder.finish(last)
    with torch.no_grad():
        zero = graph(torch.zeros(1, 3, 1, 1)).double().mean()
        white = graph(torch.full((1, 3, 1, 1), 255.0)).double().mean()
    slope = float(white - zero) / 255
    return (float(-zero) / slope, 1 / slope) if slope > 0 else (0.0, 1.0)


def _input_size(inputs: list[onnx.ValueInfoProto], path: Path) -> tuple[int, int]:
    if len(inputs) != 1:
        raise ModelFileError(
            f"{path}: has inputs {[i.name for i in inputs]}; one image input is expected"
        )
    tensor = inputs[0].type.tensor_type
    dims = [d.dim_value for d in tensor.shape.dim]
    if tensor.elem_type not in _FLOAT_INPUTS:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ModelFileError(f"{path}: the input is {kind}, a float image is expected")
    if len(dims) != 4 or dims[1] not in (0, 3):
        raise ModelFileError(
            f"{path}: the input has shape {dims}, a face network takes (N, 3, height, width)"
        )
    return dims[2] or DEFAULT_SIZE, dims[3] or DEFAULT_SIZE


def _import_nodes(
    model: onnx.ModelProto, context: Context, opset: int, output: str, path: Path
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
                _fold(node, context, model)
            elif node.op_type in HANDLERS:
                attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                operands = Operands(node, context, attrs, opset)
                found = HANDLERS[node.op_type](operands)
                results = [found] if isinstance(found, str) else found
                context.names.update(zip(node.output, results, strict=False))
            else:
                raise NotCanonical("")
        except NotCanonical as error:
            reason = f" ({error})" if str(error) else ""
            problems.append(f"{node.op_type} {node.name!r}{reason}")
            unknown.update(node.output)
    if problems:
        raise UnsupportedOperatorError(
            f"{path}: {len(problems)} nodes are not supported: " + "; ".join(problems)
        )


def _fold(node: onnx.NodeProto, context: Context, model: onnx.ModelProto) -> None:
    """Compute a node of constants with ONNX's reference evaluator."""
    feeds: dict[str, Any] = {i: context.constants[i] for i in node.input if i}
    try:
        results: Any = ReferenceEvaluator(
            node, opsets={o.domain: o.version for o in model.opset_import}
        ).run(None, feeds)
    except Exception as error:  # the reference evaluator raises many kinds
        raise NotCanonical(f"cannot be computed from its constants: {error}") from None
    for name, value in zip(node.output, results, strict=True):
        context.constants[name] = _single(value)
