"""A student in integers, with the exact rounding of ONNX Runtime's CPU kernels.

Fake quantization computes the same function in float32. There a value on the edge between two codes may
round to the other one: a few codes in a million. Such a difference grows through a hundred quantized
tensors. So two correct computations of one student end about 0.001 apart in cosine.

Here accumulators are exact integers. They are multiplied by the runtime's own float32 factor:
``round(float(acc) * (s_x s_w / s_y)) + z``. So a wrong file shows far below that noise.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from efquantface.export.sums16 import lost
from efquantface.graph import ops
from efquantface.graph.graph import module_of
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

_Layer = QuantAffine | QuantConv2d | QuantLinear


@dataclass(frozen=True)
class _Codes:
    """Integer codes (float64 tensor) as the file holds them, with float32 scale and zero point."""

    codes: Tensor
    scale: np.float32
    zero_point: int
    unsigned: bool = True

    def real(self) -> Tensor:
        return (self.codes - self.zero_point) * float(self.scale)


@dataclass(frozen=True)
class _Accumulated:
    """Exact int32 accumulators (float64 tensor) and a float32 scale per channel."""

    values: Tensor
    scale: Tensor  # broadcastable, float32


@dataclass(frozen=True)
class _Sum:
    first: _Codes
    second: _Codes


def emulate(
    student: FaceModel, pixels: Tensor, *, wide: bool = False, sums16: bool = False
) -> Tensor:
    """Embeddings (N,D) float32 of pixels (N,3,H,W), computed in integers.

    Args:
        student: quantized.
        pixels: 0 to 255.
        wide: compute islands in float64, not in float32. That is another correct computation of the
            same student: the distance between both is what rounding alone explains.
        sums16: integer layers add as x86 kernels without VNNI do (:mod:`sums16`).
    """
    with torch.no_grad():
        result: Tensor = Emulator(student.graph, wide, sums16).run(pixels.cpu().float())
    return result.float()


class Emulator(fx.Interpreter):
    """Computes a student's graph in integers. Subclasses may read its codes and replace them.

    Attributes:
        overflowed: a layer has two neighbouring weights whose products can exceed 16 bits.
    """

    def __init__(self, gm: fx.GraphModule, wide: bool = False, sums16: bool = False) -> None:
        super().__init__(gm)
        self.wide, self.sums16, self.overflowed = wide, sums16, False

    def run_node(self, n: fx.Node) -> Any:
        assert isinstance(self.module, fx.GraphModule)
        module = module_of(self.module, n)
        if n.op == "output":
            return _real(self.env[n.all_input_nodes[0]])
        if module is None:
            return super().run_node(n)
        inputs = [self.env[a] for a in n.args if isinstance(a, fx.Node)]
        if isinstance(module, InputQuantizer):
            return _input(module, inputs[0])
        if isinstance(module, ActivationQuantizer):
            unrounded, made = _requantize(module, inputs[0])
            in_float = isinstance(inputs[0], Tensor)
            return replace(made, codes=self.settle(n, module, unrounded, made.codes, in_float))
        if isinstance(module, _Layer):
            accumulated = _accumulate(module, inputs[0])
            if self.sums16 and inputs[0].unsigned and not isinstance(module, QuantAffine):
                accumulated = self._in_16_bits(module, inputs[0], accumulated)
            if _is_rows(module, inputs[0]):
                return _real(accumulated) + module.bias
            return accumulated
        if isinstance(module, ops.Add) and all(isinstance(x, _Codes) for x in inputs):
            return _Sum(inputs[0], inputs[1])
        if isinstance(module, ops.Multiply) and all(isinstance(x, _Codes) for x in inputs):
            first, second = inputs
            scale = torch.tensor(first.scale) * torch.tensor(second.scale)
            return _Accumulated(
                (first.codes - first.zero_point) * (second.codes - second.zero_point), scale
            )
        if ops.moves_codes(module) and isinstance(inputs[0], _Codes):
            return _on_codes(module, inputs[0])
        if self.wide:
            return copy.deepcopy(module).double()(*(_real(x).double() for x in inputs)).float()
        return module(*(_real(x) for x in inputs))  # an island

    def is_input(self, n: fx.Node) -> bool:
        """Whether a node quantizes the pixels."""
        assert isinstance(self.module, fx.GraphModule)
        return isinstance(module_of(self.module, n), InputQuantizer)

    def _in_16_bits(
        self, module: QuantConv2d | QuantLinear, x: _Codes, exact: _Accumulated
    ) -> _Accumulated:
        missing = lost(module, x.codes, x.zero_point)
        if missing is None:
            return exact
        self.overflowed = True
        return replace(exact, values=exact.values - missing.double())

    def settle(
        self,
        node: fx.Node,
        module: ActivationQuantizer,
        unrounded: Tensor,
        codes: Tensor,
        in_float: bool,
    ) -> Tensor:
        """The codes that a quantizer hands to its readers.

        Args:
            node: the quantizer's node.
            module: the quantizer.
            unrounded: the values to be rounded, in codes, float64; not limited to qmin and qmax.
            codes: integers, float64.
            in_float: these values were computed in float, not in integers.
        """
        return codes


def _real(x: Any) -> Tensor:
    """The float32 value that a runtime hands to a float operator."""
    if isinstance(x, _Codes):
        return x.real().float()
    if isinstance(x, _Accumulated):
        return x.values.float() * x.scale
    if isinstance(x, _Sum):
        return x.first.real().float() + x.second.real().float()
    assert isinstance(x, Tensor)
    return x


def _input(module: InputQuantizer, pixels: Tensor) -> _Codes:
    scale, zero_point = module.qparams()
    if module.pixels:
        codes = pixels.double().round().clamp(0, 255)
    else:
        codes = (
            (module.normalized(pixels) / scale).round().add(module.zero_point_value).clamp(0, 255)
        )
    stored = codes.double() - (module.zero_point_value - zero_point)
    return _Codes(stored, np.float32(scale), zero_point, not module.symmetric)


def _is_rows(module: _Layer, x: _Codes) -> bool:
    """A linear layer over the last axis of a map, whose bias is added in float."""
    return isinstance(module, QuantLinear) and x.codes.dim() > 2


def _accumulate(module: _Layer, x: _Codes) -> _Accumulated:
    codes, scales = module.weight_codes()
    scale = (torch.tensor(x.scale) * scales).float()
    bias = torch.round(module.bias.double() / scale.double())
    values, weight = x.codes - x.zero_point, codes.double()
    if isinstance(module, QuantAffine):
        total = values * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
        return _Accumulated(total, scale.view(1, -1, 1, 1))
    if isinstance(module, QuantLinear):
        total = F.linear(values, weight, None if _is_rows(module, x) else bias)
    else:
        total = F.conv2d(
            values, weight, bias, module.stride, module.padding, module.dilation, module.groups
        )
        scale = scale.view(1, -1, 1, 1)
    return _Accumulated(total, scale)


def _requantize(module: ActivationQuantizer, x: Any) -> tuple[Tensor, _Codes]:
    """The values to be rounded (float64, in codes), and the codes."""
    stored, zero_point = module.qparams()
    scale = np.float32(stored)
    added = zero_point  # after rounding
    if isinstance(x, _Accumulated):
        unrounded = (x.values.float() * (x.scale / torch.tensor(scale))).double()
    elif isinstance(x, _Sum):
        unrounded, added = _add(x, scale, zero_point), 0
    else:
        unrounded = (x.float() / torch.tensor(scale)).double()
    codes = (unrounded.round() + added).clamp(module.qmin, module.qmax)
    return unrounded + added, _Codes(codes, scale, zero_point, not module.symmetric)


def _add(x: _Sum, scale: np.float32, zero_point: int) -> Tensor:
    """``z + ra (a - za) + rb (b - zb)``, not rounded yet. The constants are summed first.

    The order and the fused multiply-adds are those of ONNX Runtime's AVX2 kernel. They were found by
    trying all codes under thousands of scales. Any other order rounds some sums to the other side:
    where both codes are frequent, thousands of values differ.
    """
    ratio_a, ratio_b = x.first.scale / scale, x.second.scale / scale
    second = np.float32(ratio_b * np.float32(x.second.zero_point))
    fixed = np.float32(zero_point) - np.float32(float(ratio_a) * x.first.zero_point + float(second))
    total = (x.second.codes * float(ratio_b) + float(fixed)).float().double()
    return (x.first.codes * float(ratio_a) + total).float().double()


def sums_of_codes(
    first: tuple[np.float32, int],
    second: tuple[np.float32, int],
    made: tuple[np.float32, int],
    lowest: int,
) -> Tensor:
    """The code of the sum of any two codes, (256,256) float64; the first operand along the first axis.

    Args:
        first, second, made: scale and zero point of the operands and of the sum.
        lowest: the smallest of the 256 codes, 0 or -128.

    Returns:
        Whole numbers, not limited to the codes that a quantizer uses.
    """
    codes = torch.arange(lowest, lowest + 256, dtype=torch.float64)
    operands = _Sum(_Codes(codes[:, None], *first), _Codes(codes[None], *second))
    return _add(operands, *made).round()


def affine_codes(
    module: QuantAffine,
    quantizer: ActivationQuantizer,
    codes: Tensor,
    read: tuple[np.float32, int],
) -> Tensor:
    """The codes (1,C,...) that a per-channel affine and its quantizer compute from codes of any shape.

    Args:
        module, quantizer: the affine, and the quantizer that reads it.
        codes: whole numbers in float64, the same for all channels.
        read: scale and zero point of ``codes``.
    """
    spread = codes.expand(1, module.channels, *codes.shape).flatten(2).unsqueeze(-1)
    made = _requantize(quantizer, _accumulate(module, _Codes(spread, *read)))[1]
    return made.codes.reshape(1, module.channels, *codes.shape)


def _on_codes(module: Any, x: _Codes) -> Any:
    """Operators that hand on codes. A clamp at another value than zero gives real values."""
    if isinstance(module, ops.Clamp) and {module.low, module.high} <= {None, 0.0}:
        low = x.zero_point if module.low == 0 else None
        high = x.zero_point if module.high == 0 else None
        return replace(x, codes=x.codes.clamp(low, high))
    if isinstance(module, ops.ZeroPad):
        return replace(x, codes=module(x.codes - x.zero_point) + x.zero_point)
    if isinstance(module, ops.Clamp):
        return module(x.real())
    return replace(x, codes=module(x.codes))
