"""Does an ONNX file give the same integers on every processor? Read from the file; needs onnx and NumPy.

x86 processors without VNNI multiply unsigned codes by signed weights and add two neighbouring products
in 16 bits (``vpmaddubsw``). The sum saturates at 32,767, silently. A file is portable where no two
weights of one sign in an output channel can reach that, in whatever order a kernel reads them
(:mod:`efquantface.quantize.pairs`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from efquantface.importers.onnx.folding import NotConstant, fold
from efquantface.importers.onnx.proto import Array, constants_of
from efquantface.quantize.scheme import INT16

PORTABLE_KEY = "efquantface.portable"  # in the file's metadata: yes or no
WITHOUT_VNNI = "x86 processors without VNNI (AMD before Zen 4, Intel before Ice Lake)"
EXACT_SUMS = (
    "options = onnxruntime.SessionOptions()",
    'options.add_session_config_entry("session.x64quantprecision", "1")  # only without VNNI',
    'session = onnxruntime.InferenceSession("FILE", options)',
)
PORTABLE = "the same integers on every processor: no sum of two products can exceed 16 bits"

_LAYERS = {  # operator: which inputs are its codes, their zero point, its weight
    **dict.fromkeys(("Conv", "Gemm", "MatMul", "FusedMatMul"), (0, None, 1)),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QGemm"), (0, 2, 3)),
    **dict.fromkeys(("ConvInteger", "MatMulInteger"), (0, 2, 1)),
}
_MOVES = (
    *("MaxPool", "Flatten", "Reshape", "Transpose", "Slice", "Gather", "Pad", "Split", "Squeeze"),
)


def overflowing(model: onnx.ModelProto) -> list[str]:
    """Names of layers in which two products can exceed 16 bits.

    None in a portable file, and none in a float file.
    """
    return _Reader(model).overflowing()


def wrong_without_vnni(layers: Sequence[str]) -> str:
    """On which processors a file with such layers is wrong, and what that means there."""
    return (
        f"wrong on {WITHOUT_VNNI}: 16-bit sums overflow there in {len(layers)} "
        f"layer{'s' if len(layers) > 1 else ''}, and every client that opens the file gets other "
        "embeddings, without a warning"
    )


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.constants = constants_of(model)
        self.makers = {out: node for node in model.graph.node for out in node.output}

    def overflowing(self) -> list[str]:
        return [
            node.name or node.output[0]
            for node in self.model.graph.node
            if node.op_type in _LAYERS and self._can_overflow(node)
        ]

    def _can_overflow(self, node: onnx.NodeProto) -> bool:
        codes, zero_point, weight = _LAYERS[node.op_type]
        if zero_point is None:  # float operators between dequantizers
            pair = [self._codes(node.input[index]) for index in (codes, weight)]
            if pair[0] is None or pair[1] is None:
                return False
            (source, zero), (stored, _) = pair[0], pair[1]
        else:
            source, stored = node.input[codes], node.input[weight]
            zero = node.input[zero_point] if len(node.input) > zero_point else ""
        values = self._constant(stored)
        if values is None or values.dtype != np.int8 or values.ndim < 2:
            return False
        largest = self._largest_code(source, self._constant(zero))
        return bool(_largest_pair(_by_output(node, values)) * largest > INT16)

    def _codes(self, name: str) -> tuple[str, str] | None:
        """Names of codes and zero point where a DequantizeLinear gives ``name``; None otherwise."""
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        return maker.input[0], maker.input[2] if len(maker.input) > 2 else ""

    def _largest_code(self, name: str, zero_point: Array | None) -> int:
        """The largest absolute value of codes. An integer Clip behind their quantizer counts."""
        if zero_point is not None and zero_point.dtype == np.int8:
            return 128
        while (maker := self.makers.get(name)) is not None and maker.op_type in (*_MOVES, "Clip"):
            if maker.op_type == "Clip" and len(maker.input) > 2:
                high = self._constant(maker.input[2])
                return 255 if high is None else min(int(high), 255)
            name = maker.input[0]
        return 255

    def _constant(self, name: str) -> Array | None:
        """An initializer, or a value computed from constants alone; None for anything else."""
        if name in self.constants or not name:
            return self.constants.get(name)
        maker = self.makers.get(name)
        if maker is None or any(self._constant(i) is None for i in maker.input if i):
            return None
        try:
            self.constants |= fold(maker, self.constants, self.model)
        except NotConstant:
            return None
        return self.constants.get(name)


def _by_output(node: onnx.NodeProto, weight: Array) -> Array:
    """A weight as (O,K): outputs, inputs."""
    attributes = {a.name: a.i for a in node.attribute}
    if "Conv" in node.op_type or attributes.get("transB"):
        return weight.reshape(len(weight), -1)
    return np.moveaxis(weight, -1, 0).reshape(weight.shape[-1], -1)


def _largest_pair(weight: Array) -> int:
    """The largest sum of the absolute values of two weights of one sign in a row of (O,K)."""
    found = 0
    for sign in (1, -1):
        sized = np.sort(np.maximum(sign * weight.astype(np.int32), 0), axis=1)[:, -2:]
        found = max(found, int(sized.sum(axis=1).max(initial=0)))
    return found
