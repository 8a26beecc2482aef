"""Writes a canonical graph as ONNX: a student in integers (QDQ form), or a float network.

The file keeps the teacher's input and output names and its normalization. Integer weights and biases are
initializers. A value that an integer kernel reads has a QuantizeLinear directly on its producer's output
and a DequantizeLinear in front of each reader; the runtimes fuse both into integer kernels. Max pooling,
flattening, padding and ``min(x, 0)`` work on the codes themselves.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper
from torch import fx

from efquantface.contract import METADATA_KEY
from efquantface.errors import ExportError
from efquantface.export.emitters import EMITTERS, Emitters, emit
from efquantface.export.packing import PACKED_IR_VERSION, PACKED_OPSET, stored_bits
from efquantface.export.portability import PORTABLE_KEY, overflowing
from efquantface.export.values import Value, Writer
from efquantface.files import write_bytes
from efquantface.graph.graph import INPUT, module_nodes, name_of, output_name, shapes
from efquantface.graph.model import FaceModel
from efquantface.quantize.layers import QuantConv2d, QuantLinear

OPSET = 17
IR_VERSION = 8


def write_onnx(
    model: FaceModel,
    path: Path,
    metadata: dict[str, str] | None = None,
    *,
    packed: bool = True,
) -> None:
    """Write ``model`` (quantized or float) to ``path``. The file appears whole or not at all.

    Args:
        model: the network.
        path: of the file.
        metadata: of the file, beside what is always written.
        packed: store weights of up to 6 bits in few bits (:mod:`packing`). Such a file has opset 21.

    Raises:
        ExportError: an operator has no ONNX form, or a bias does not fit into int32.
    """
    write_bytes(path, to_onnx(model, metadata, packed=packed).SerializeToString())


def to_onnx(
    model: FaceModel, metadata: dict[str, str] | None = None, *, packed: bool = True
) -> onnx.ModelProto:
    """The ONNX form of a model, with dynamic batch and fixed height and width.

    Raises:
        ExportError: an operator has no ONNX form, or a bias does not fit into int32.
    """
    return named_onnx(model, metadata, packed=packed)[0]


def named_onnx(
    model: FaceModel,
    metadata: dict[str, str] | None = None,
    *,
    packed: bool = True,
    emitters: Emitters = EMITTERS,
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """:func:`to_onnx`, and the names of the file's tensors by the names of the graph's nodes.

    ``emitters`` are the ONNX forms of operators (:mod:`emitters`).
    """
    contract = model.contract
    packed = packed and any(
        stored_bits(m.bits) < 8
        for m in model.graph.modules()
        if isinstance(m, QuantConv2d | QuantLinear)
    )
    opset = PACKED_OPSET if packed else OPSET
    out = Writer(contract, _ranks(model), model.quantized, packed=packed, opset=opset)
    out.taken |= {contract.input_name, contract.output_name}
    values = {INPUT: Value(contract.input_name)}
    for node, module in module_nodes(model.graph):
        inputs = [values[name_of(a)] for a in node.args if isinstance(a, fx.Node)]
        values[name_of(node)] = emit(out, name_of(node), module, inputs, emitters)
    result = out.dequantize(values[output_name(model.graph)])
    _name_output(out, result)
    tensors = {name: value.name for name, value in values.items()}
    tensors |= {n: contract.output_name for n, tensor in tensors.items() if tensor == result}
    out.unpack_first()
    _name_for_loaders(out)
    graph = helper.make_graph(
        out.nodes,
        "efquantface",
        [_tensor_info(contract.input_name, ["batch", 3, contract.height, contract.width])],
        [_tensor_info(contract.output_name, ["batch", contract.embedding_size])],
        out.initializers,
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="efquantface"
    )
    proto.ir_version = PACKED_IR_VERSION if packed else IR_VERSION
    stored = {METADATA_KEY: contract.to_json(), **(metadata or {})}
    if contract.licence:
        stored["teacher_licence"] = contract.licence
    if model.quantized:
        stored[PORTABLE_KEY] = "no" if overflowing(proto) else "yes"
    helper.set_model_props(proto, stored)
    onnx.checker.check_model(proto)
    return proto, tensors


def _ranks(model: FaceModel) -> dict[str, int]:
    found = shapes(model.graph, model.contract.height, model.contract.width)
    return {name: len(shape) for name, shape in found.items()}


def _name_output(out: Writer, result: str) -> None:
    """Name the embedding as the contract does."""
    for node in out.nodes:
        for index, name in enumerate(node.output):
            if name == result:
                node.output[index] = out.contract.output_name
                return
    raise ExportError("the graph has no operator that gives the embedding")


def _name_for_loaders(out: Writer) -> None:
    """Name the first nodes Sub and Mul in a file of raw pixels. InsightFace's loader looks for them."""
    if out.contract.is_raw_pixels:
        for node, prefix in zip(out.nodes, ("Sub_", "Mul_"), strict=False):
            node.name = prefix + node.name.replace("/", "_")


def _tensor_info(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def insightface_loader_normalization(node_names: tuple[str, ...]) -> tuple[float, float]:
    """(mean, std) that InsightFace's Python loader infers from the names of the first 8 nodes."""
    first = node_names[:8]
    subtracts = any(n.startswith(("Sub", "_minus")) for n in first)
    multiplies = any(n.startswith(("Mul", "_mul")) for n in first)
    return (0.0, 1.0) if subtracts and multiplies else (127.5, 127.5)
