"""Whether an ONNX file agrees with itself: sizes with bytes, attributes with schemas.

Parsing protobuf accepts any numbers. Here they are compared before anything is computed from them. So a
damaged file is one error that names what is wrong, and a small file takes little memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from efquantface.contract import LARGEST_SIDE
from efquantface.errors import EfqError, ModelFileError

_TYPES = set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
_WIDTHS = {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8, "COMPLEX64": 64, "COMPLEX128": 128}
_NUMBER = re.compile(r"(?:B?FLOAT|U?INT)([0-9]+)")  # FLOAT16, UINT4, FLOAT8E4M3FN
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
_LARGEST_INPUT = 1 << 26  # values of an input with a fixed batch, at most: 256 MB
_DEEPEST = 16  # graphs nested in each other, at most


class _Damage(Exception):
    """What is wrong with a file."""


def check_model(model: onnx.ModelProto, path: Path) -> None:
    """Check that a parsed file agrees with itself.

    Raises:
        ModelFileError: a tensor's bytes are not those of its size, a node lacks what its operator
            needs, an attribute has another type, or an input is too large for crops.
    """
    try:
        versions = {o.domain or "ai.onnx": o.version for o in model.opset_import}
        if any(not 0 < version < 1 << 31 for version in versions.values()):
            raise _Damage(f"operators of version {max(versions.values())}")
        _check_graph(model.graph, versions.get("ai.onnx", 1), 0)
        for value in model.graph.input:
            _check_input(value, {i.name for i in model.graph.initializer})
    except _Damage as damage:
        raise ModelFileError(f"{path}: not a whole ONNX file ({damage})") from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A context in which errors of an inconsistent file become one error with the file's name.

    Raises:
        ModelFileError: in place of errors of arithmetic, indices, types, sizes and memory.
    """
    try:
        yield
    except EfqError:
        raise
    except MemoryError:
        raise ModelFileError(f"{path}: asks for more memory than there is") from None
    except MISFITS as error:
        raise ModelFileError(f"{path}: makes no sense as a network ({misfit(error)})") from None


# errors of reading a node that does not fit its own operator
MISFITS = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError),
    *(AssertionError, StopIteration),
)


def misfit(error: Exception) -> str:
    """Type and first line of an error, shortened."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _check_graph(graph: GraphProto, version: int, depth: int) -> None:
    if depth > _DEEPEST:
        raise _Damage(f"graphs nested deeper than {_DEEPEST}")
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for node in graph.node:
        _check_node(node, version, depth)


def _check_node(node: NodeProto, version: int, depth: int) -> None:
    what = f"{node.op_type} {node.name or ', '.join(node.output)!r}"
    if not any(node.output):
        raise _Damage(f"{what} gives nothing")
    for attribute in node.attribute:
        _check_attribute(attribute, what, version, depth)
    if node.domain not in ("", "ai.onnx"):
        return
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        return  # no operator of ONNX: the importer names it
    except TypeError:
        raise _Damage(f"opset {version}") from None
    if len(node.input) < schema.min_input or len(node.output) > schema.max_output:
        raise _Damage(f"{what} has {len(node.input)} inputs and {len(node.output)} outputs")
    needed = [i.name for i in schema.inputs[: schema.min_input]]
    if not all(node.input[: schema.min_input]):
        raise _Damage(f"{what} lacks one of its inputs ({', '.join(needed)})")
    given = {a.name: a for a in node.attribute}
    for name, declared in schema.attributes.items():
        if name not in given:
            if declared.required:
                raise _Damage(f"{what} has no attribute {name!r}")
        elif given[name].type != _number(declared.type):
            kind = AttributeProto.AttributeType.Name(_number(declared.type))
            raise _Damage(f"attribute {name!r} of {what} is not {kind}")


def _number(kind: Any) -> int:
    """The number that files hold for a value of the schema's enumeration."""
    return int(kind.value)


def _check_attribute(attribute: AttributeProto, what: str, version: int, depth: int) -> None:
    if attribute.type not in AttributeProto.AttributeType.values() or not attribute.type:
        raise _Damage(f"attribute {attribute.name!r} of {what} has no type")
    tensors = [attribute.t] if attribute.type == AttributeProto.TENSOR else attribute.tensors
    for tensor in tensors:
        _check_tensor(tensor)
    graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
    for graph in graphs:
        _check_graph(graph, version, depth + 1)


def _check_tensor(tensor: TensorProto) -> None:
    what = f"tensor {tensor.name!r}"
    if tensor.data_type not in _TYPES:
        raise _Damage(f"{what} has no type")
    dims = list(tensor.dims)
    if any(d < 0 for d in dims) or len(dims) > 64:
        raise _Damage(f"{what} has sizes {dims[:8]}")
    if tensor.data_location == TensorProto.EXTERNAL:
        raise _Damage(f"{what} lies in a file that was not read")
    count = prod(dims)
    filled = [name for name in _FIELDS if len(getattr(tensor, name))]
    bits = _bits(tensor.data_type)
    if tensor.HasField("raw_data") and not filled:
        wanted = -(-count * bits // 8)
        if len(tensor.raw_data) != wanted or not bits:
            raise _Damage(f"{what} of sizes {dims} has {len(tensor.raw_data)} bytes, not {wanted}")
        return
    field = helper.tensor_dtype_to_field(tensor.data_type)
    if filled not in ([], [field]) or tensor.HasField("raw_data"):
        raise _Damage(f"{what} holds values of several types")
    values = len(getattr(tensor, field))
    wanted = count * 2 if tensor.data_type in _COMPLEX else count
    if values != wanted if bits >= 8 or not bits else not 0 < values <= wanted:
        raise _Damage(f"{what} of sizes {dims} has {values} values")


def _bits(data_type: int) -> int:
    """Bits of a stored value; 0 for texts."""
    name = TensorProto.DataType.Name(data_type)
    found = _NUMBER.match(name)
    return _WIDTHS.get(name) or (int(found[1]) if found else 0)


def _check_input(value: onnx.ValueInfoProto, stored: set[str]) -> None:
    if value.name in stored:
        return
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
    if any(d < 0 for d in dims):
        raise _Damage(f"the input {value.name!r} has shape {dims}")
    if max(dims[1:], default=0) > LARGEST_SIDE:
        raise _Damage(
            f"the input {value.name!r} has shape {dims}; crops have up to {LARGEST_SIDE} pixels a side"
        )
    if prod(d or 1 for d in dims) > _LARGEST_INPUT:
        raise _Damage(
            f"the input {value.name!r} takes {dims[0]:,} crops at a time; export it with an open batch"
        )
