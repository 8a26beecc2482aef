"""Parsed ONNX files: inputs, outputs, constants. Needs onnx and NumPy only."""

from __future__ import annotations

from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from efquantface.errors import ModelFileError
from efquantface.importers.onnx.checked import check_model

Array = npt.NDArray[Any]

_QUANTIZED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "QGemm"),
    *("MatMulInteger", "MatMulNBits", "QLinearConv", "QLinearMatMul"),
)
LEAST_EMBEDDING = 16  # an output with fewer values is a norm or a quality score


def load_proto(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file. Nothing in it is run.

    Raises:
        ModelFileError: the file is missing, empty, truncated, not ONNX, or inconsistent.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file")
    try:
        model = onnx.load(str(path))
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        raise ModelFileError(f"{path}: not a readable ONNX file ({error})") from None
    if not model.graph.node:
        raise ModelFileError(f"{path}: holds no network (an ONNX file without nodes)")
    check_model(model, path)
    _put_in_order(model.graph)
    return model


def _put_in_order(graph: onnx.GraphProto) -> None:
    """Put each node behind the nodes that it reads. Some converters append nodes at the end.

    A graph in order is not changed.
    """
    maker = {name: at for at, node in enumerate(graph.node) for name in node.output}
    missing = [{maker[n] for n in _read(node) if n in maker} for node in graph.node]
    readers: dict[int, list[int]] = {}
    for at, needed in enumerate(missing):
        for other in needed:
            readers.setdefault(other, []).append(at)
    ready = [at for at, needed in enumerate(missing) if not needed]
    order: list[int] = []
    while ready:
        order.append(heappop(ready))
        for at in readers.get(order[-1], ()):
            missing[at].discard(order[-1])
            if not missing[at]:
                heappush(ready, at)
    if order == sorted(order) or len(order) < len(graph.node):
        return  # in order, or a cycle, which no runtime runs
    nodes = [graph.node[at].SerializeToString() for at in order]
    del graph.node[:]
    graph.node.extend(onnx.NodeProto.FromString(node) for node in nodes)


def _read(node: onnx.NodeProto) -> set[str]:
    """Names that a node and its branches read."""
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                names |= _read(inner)
    return names


def quantized_operators(model: onnx.ModelProto) -> list[str]:
    """Types of the file's operators that only quantized files have; empty for a float network."""
    return sorted({n.op_type for n in model.graph.node if n.op_type in _QUANTIZED})


def candidates(model: onnx.ModelProto, path: Path) -> list[str]:
    """Outputs that may be the embedding, as far as the file declares them; at least one.

    Norms and quality scores beside the embedding are left out where their size is declared.

    Raises:
        ModelFileError: no output can be the embedding, or several can by their declared sizes.
    """
    outputs = list(model.graph.output)
    if len(outputs) > 1:
        outputs = [o for o in outputs if width(o) is None or (width(o) or 0) >= LEAST_EMBEDDING]
        declared = [o for o in outputs if width(o)]
        outputs = declared if len(declared) == 1 else outputs
        if not outputs or len(declared) > 1:
            raise several_outputs(model, path)
    return [str(o.name) for o in outputs]


def several_outputs(model: onnx.ModelProto, path: Path) -> ModelFileError:
    """The error of a file in which several outputs could be the embedding."""
    names = [o.name for o in model.graph.output]
    return ModelFileError(
        f"{path}: has outputs {names}; one embedding is expected. Keep one of them: "
        "onnx.utils.extract_model(FILE, NEW_FILE, [INPUT], [OUTPUT])"
    )


def width(output: onnx.ValueInfoProto) -> int | None:
    """Values per face that an output declares; 0 where it is a map, None where it does not declare.

    An embedding has one long axis beside the batch: (N, D), (N, D, 1, 1), (N, 1, 1, D), (D,).
    """
    if not output.type.tensor_type.HasField("shape"):
        return None
    dims = [d.dim_value for d in output.type.tensor_type.shape.dim]
    sizes = dims[1:] if len(dims) > 1 else dims
    if not sizes or 0 in sizes:
        return None
    return max(sizes) if sum(size > 1 for size in sizes) <= 1 else 0


def constants_of(model: onnx.ModelProto) -> dict[str, Array]:
    """Initializers by name. Half precision becomes float32, as in all arithmetic here."""
    return {i.name: single(numpy_helper.to_array(i)) for i in model.graph.initializer}


def stored_names(model: onnx.ModelProto) -> set[str]:
    """Names of initializers. Old files list them among their inputs, too."""
    return {i.name for i in model.graph.initializer}


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators; 0 where the file does not give it."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def single(value: Any) -> Array:
    """A value as a NumPy array. Half precision becomes float32."""
    array = np.asarray(value)
    half = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if half else array
