"""ONNX files as they are parsed: inputs, outputs, constants. Needs onnx and NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from efquantface.errors import ModelFileError

Array = npt.NDArray[Any]
DEFAULT_SIZE = 112

_QUANTIZED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "QGemm"),
    *("MatMulInteger", "MatMulNBits", "QLinearConv", "QLinearMatMul"),
)
_FLOAT_INPUTS = (TensorProto.FLOAT, TensorProto.FLOAT16)
LEAST_EMBEDDING = 16  # an output of fewer values is something else: a norm, a quality score


class NotConstant(Exception):
    """A node cannot be computed from its constants; the text says why."""


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


def quantized_operators(model: onnx.ModelProto) -> list[str]:
    """Types of the operators that only quantized files have; empty for a float network."""
    return sorted({n.op_type for n in model.graph.node if n.op_type in _QUANTIZED})


def image_input(model: onnx.ModelProto, path: Path) -> tuple[str, tuple[int, int]]:
    """Name, height and width of the one image input; sizes left open are ``DEFAULT_SIZE``.

    Raises:
        ModelFileError: several inputs, or one that is no float image.
    """
    constants = stored_names(model)
    inputs = [i for i in model.graph.input if i.name not in constants]
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
    return str(inputs[0].name), (dims[2] or DEFAULT_SIZE, dims[3] or DEFAULT_SIZE)


def embedding_output(model: onnx.ModelProto, path: Path) -> str:
    """The output that is an embedding; norms and quality scores beside it are left alone.

    Raises:
        ModelFileError: several outputs could be it, or none.
    """
    outputs = list(model.graph.output)
    if len(outputs) > 1:
        outputs = [o for o in outputs if width(o) is None or (width(o) or 0) >= LEAST_EMBEDDING]
        declared = [o for o in outputs if width(o)]
        outputs = declared if len(declared) == 1 else outputs
    if len(outputs) != 1:
        names = [o.name for o in model.graph.output]
        raise ModelFileError(
            f"{path}: has outputs {names}; one embedding is expected. Keep one of them: "
            "onnx.utils.extract_model(FILE, NEW_FILE, [INPUT], [OUTPUT])"
        )
    return str(outputs[0].name)


def width(output: onnx.ValueInfoProto) -> int | None:
    """Values a face of an output (N, D) or (N, D, 1, 1); 0 for other shapes, None if not said."""
    if not output.type.tensor_type.HasField("shape"):
        return None
    dims = [d.dim_value for d in output.type.tensor_type.shape.dim]
    if len(dims) == 2 or (len(dims) == 4 and dims[2:] == [1, 1]):
        return dims[1] or None
    return 0


def constants_of(model: onnx.ModelProto) -> dict[str, Array]:
    """Initializers, half precision as float32: all arithmetic here is float32."""
    return {i.name: _single(numpy_helper.to_array(i)) for i in model.graph.initializer}


def stored_names(model: onnx.ModelProto) -> set[str]:
    """Names of initializers; old files list them among their inputs."""
    return {i.name for i in model.graph.initializer}


def opset(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators, 0 where the file does not say it."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def fold(
    node: onnx.NodeProto, constants: Mapping[str, Array], model: onnx.ModelProto
) -> dict[str, Array]:
    """Outputs by name of a node of constants, computed with ONNX's reference evaluator.

    Raises:
        NotConstant: the evaluator cannot.
    """
    feeds: dict[str, Any] = {i: constants[i] for i in node.input if i}
    try:
        results: Any = ReferenceEvaluator(
            node, opsets={o.domain: o.version for o in model.opset_import}
        ).run(None, feeds)
    except Exception as error:  # the reference evaluator raises many kinds
        raise NotConstant(f"cannot be computed from its constants: {error}") from None
    return {name: _single(value) for name, value in zip(node.output, results, strict=True)}


def _single(value: Any) -> Array:
    array = np.asarray(value)
    half = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if half else array
