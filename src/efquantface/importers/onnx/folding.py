"""Nodes of constants, computed when a file is read. Needs onnx, ONNX Runtime and NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from efquantface.graph.limits import TooLarge
from efquantface.importers.onnx.growth import check_folded
from efquantface.importers.onnx.proto import Array, opset, single

_QUIET = 4  # ONNX Runtime's errors say what its log says


class NotConstant(Exception):
    """A node cannot be computed from its constants; the text says why."""


def fold(
    node: onnx.NodeProto, constants: Mapping[str, Array], model: onnx.ModelProto
) -> dict[str, Array]:
    """The outputs, by name, of a node of constants.

    ONNX's reference evaluator lacks some operators of old opsets. ONNX Runtime computes those.

    Raises:
        NotConstant: neither computes the node, or its result is too large.
    """
    feeds: dict[str, Any] = {i: constants[i] for i in node.input if i}
    try:
        check_folded(node, list(feeds.values()))
    except TooLarge as error:
        raise NotConstant(str(error)) from None
    try:
        results: Any = ReferenceEvaluator(
            node, opsets={o.domain: o.version for o in model.opset_import}
        ).run(None, feeds)
    except Exception:  # the reference evaluator raises many kinds
        results = run_node(node, feeds, opset(model))
    return {name: single(value) for name, value in zip(node.output, results, strict=True)}


def run_node(node: onnx.NodeProto, feeds: Mapping[str, Array], version: int) -> list[Array]:
    """The outputs of one node, computed by ONNX Runtime.

    Args:
        node: of an operator of ONNX itself.
        feeds: inputs by name.
        version: the opset.

    Raises:
        NotConstant: ONNX Runtime does not run the node.
    """
    graph = helper.make_graph(
        [node],
        "node",
        [],
        [helper.make_tensor_value_info(o, TensorProto.UNDEFINED, None) for o in node.output],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in feeds.items()],
    )
    operators = helper.make_operatorsetid("", version)
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=[operators], ir_version=8)
    for output in made.graph.output:
        output.ClearField("type")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    try:
        session = onnxruntime.InferenceSession(
            made.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(value) for value in session.run(None, {})]
    except Exception as error:  # ONNX Runtime raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotConstant(f"cannot be computed from its constants: {reason}") from None
