"""What ONNX Runtime executes of a file: how much in integers, and what stays in float."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

from efquantface.files import temporary_folder
from efquantface.runtime.sessions import onnxruntime_session

_FLOAT = (  # operators that compute in float
    *("Abs", "Add", "AveragePool", "BatchNormalization", "BiasGelu", "Conv", "DequantizeLinear"),
    *("Div", "Elu", "Erf", "Exp", "FastGelu", "FusedConv", "FusedGemm", "FusedMatMul", "Gelu"),
    *("Gemm", "GlobalAveragePool", "InstanceNormalization", "LayerNormalization", "Log", "MatMul"),
    *("Mul", "NhwcFusedConv", "PRelu", "Pow", "QuickGelu", "ReduceL2", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceSum", "Relu", "Sigmoid", "SkipLayerNormalization", "Softmax"),
    *("Softplus", "Sqrt", "Sub", "Tanh"),
)
_FLOAT_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv")
_FLOAT_PRODUCTS = ("Gemm", "FusedGemm", "MatMul", "FusedMatMul")
_INTEGER_PRODUCTS = ("QGemm", "MatMulIntegerToFloat", "QLinearMatMul", "MatMulInteger")


@dataclass(frozen=True)
class Executed:
    """A file's operators after ONNX Runtime's optimizations.

    Attributes:
        counts: operators by type.
        convolutions, integer_convolutions: all, and those in integers.
        products, integer_products: the same for matrix products with weights (linear layers).
            Products of two activations are not counted.
    """

    counts: dict[str, int]
    convolutions: int
    integer_convolutions: int
    products: int
    integer_products: int

    @property
    def in_float(self) -> dict[str, int]:
        """Operators that compute in float, by type."""
        return {op: count for op, count in self.counts.items() if op in _FLOAT}

    def describe(self) -> str:
        """One line for logs."""
        left = ", ".join(f"{count} {op}" for op, count in self.in_float.items()) or "nothing"
        return (
            f"{self.integer_convolutions} of {self.convolutions} convolutions and "
            f"{self.integer_products} of {self.products} matrix products run in int8; "
            f"left in float: {left}"
        )


def executed(path: Path, *, signed_integers: bool = False) -> Executed:
    """Let ONNX Runtime optimize a file, and count the operators of the result.

    Raises:
        ModelFileError: ONNX Runtime does not load the file.
    """
    with temporary_folder() as folder:
        optimized = folder / "optimized.onnx"
        onnxruntime_session(path, threads=1, optimized=optimized, signed_integers=signed_integers)
        graph = onnx.load(str(optimized)).graph
    counts = Counter(node.op_type for node in graph.node)
    weights = {i.name for i in graph.initializer}
    floats = sum(counts[op] for op in _FLOAT_CONVOLUTIONS)
    float_products = sum(
        node.op_type in _FLOAT_PRODUCTS and any(name in weights for name in node.input[:2])
        for node in graph.node
    )
    integer, products = counts["QLinearConv"], sum(counts[op] for op in _INTEGER_PRODUCTS)
    return Executed(
        dict(sorted(counts.items())),
        integer + floats + counts["ConvInteger"],
        integer,
        products + float_products,
        products,
    )
