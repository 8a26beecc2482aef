"""A student in integers, with the very rounding of ONNX Runtime's CPU kernels.

Fake quantization computes the same function in float32, where a value that lies on the edge between
two codes may round differently: a few codes in a million. Through a hundred quantized tensors each
such step grows into rounding noise of its own, so two correct computations of one student end up
about 0.001 apart in cosine. Here accumulators are exact integers and are multiplied by the same
float32 factor as in the runtime (``round(float(acc) * (s_x s_w / s_y)) + z``), so that a file can be
told right or wrong far below that noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from efquantface.models.graph import module_of
from efquantface.models.model import FaceModel
from efquantface.models.ops import Add, Clamp, Flatten, GlobalAvgPool, ZeroPad
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

_Layer = QuantAffine | QuantConv2d | QuantLinear


@dataclass(frozen=True)
class _Codes:
    """Integer codes (float64 tensor) with float32 step and integer zero point."""

    codes: Tensor
    step: np.float32
    zero: int

    def real(self) -> Tensor:
        return (self.codes - self.zero) * float(self.step)


@dataclass(frozen=True)
class _Accumulated:
    """Exact int32 accumulators (float64 tensor), and the float32 scale of each channel."""

    values: Tensor
    scale: Tensor  # broadcastable, float32


@dataclass(frozen=True)
class _Sum:
    first: _Codes
    second: _Codes


def emulate(student: FaceModel, pixels: Tensor) -> Tensor:
    """Embeddings (N,D) float32 of pixels (N,3,H,W), computed in integers."""
    with torch.no_grad():
        result: Tensor = _Emulator(student.graph).run(pixels.cpu().float())
    return result


class _Emulator(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        assert isinstance(self.module, fx.GraphModule)
        module = module_of(self.module, n)
        if module is None:
            return super().run_node(n)
        inputs = [self.env[a] for a in n.args if isinstance(a, fx.Node)]
        if isinstance(module, InputQuantizer):
            return _input(module, inputs[0])
        if isinstance(module, ActivationQuantizer):
            return _requantize(module, inputs[0])
        if isinstance(module, _Layer):
            accumulated = _accumulate(module, inputs[0])
            last = any(user.op == "output" for user in n.users)
            return (accumulated.values.float() * accumulated.scale) if last else accumulated
        if isinstance(module, Add):
            return _Sum(inputs[0], inputs[1])
        return _on_codes(module, inputs[0])


def _input(module: InputQuantizer, pixels: Tensor) -> _Codes:
    step, zero = module.qparams()
    if module.pixels:
        codes = pixels.double().round().clamp(0, 255)
    else:
        codes = (module.normalized(pixels) / step).round().add(module.zero_value).clamp(0, 255)
    return _Codes(codes.double() - (module.zero_value - zero), np.float32(step), zero)


def _accumulate(module: _Layer, x: _Codes) -> _Accumulated:
    codes, steps = module.weight_codes()
    scale = (torch.tensor(x.step) * steps).float()
    bias = torch.round(module.bias.double() / scale.double())
    values, weight = x.codes - x.zero, codes.double()
    if isinstance(module, QuantLinear):
        return _Accumulated(F.linear(values, weight, bias), scale)
    if isinstance(module, QuantAffine):
        total = values * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    else:
        total = F.conv2d(
            values, weight, bias, module.stride, module.padding, module.dilation, module.groups
        )
    return _Accumulated(total, scale.view(1, -1, 1, 1))


def _requantize(module: ActivationQuantizer, x: Any) -> _Codes:
    step, zero = module.qparams()
    scale = np.float32(step)
    if isinstance(x, _Accumulated):
        factor = x.scale / torch.tensor(scale)
        rounded = (x.values.float() * factor).round().double()
    elif isinstance(x, _Sum):
        rounded = _add(x, scale, zero) - zero
    else:
        rounded = (x.float() / torch.tensor(scale)).round().double()
    return _Codes((rounded + zero).clamp(module.lowest, module.highest), scale, zero)


def _add(x: _Sum, scale: np.float32, zero: int) -> Tensor:
    """``z + ra (a - za) + rb (b - zb)`` with the constants summed first, and fused multiply-adds."""
    ratio_a, ratio_b = x.first.step / scale, x.second.step / scale
    fixed = np.float32(zero) - (
        ratio_a * np.float32(x.first.zero) + ratio_b * np.float32(x.second.zero)
    )
    total = (x.first.codes * float(ratio_a) + float(fixed)).float().double()
    return (x.second.codes * float(ratio_b) + total).float().round().double()


def _on_codes(module: Any, x: _Codes) -> Any:
    """Operators that hand on codes; averages give real values."""
    if isinstance(module, Clamp) and {module.low, module.high} <= {None, 0.0}:
        low = x.zero if module.low == 0 else None
        high = x.zero if module.high == 0 else None
        return _Codes(x.codes.clamp(low, high), x.step, x.zero)
    if isinstance(module, ZeroPad):
        return _Codes(module(x.codes - x.zero) + x.zero, x.step, x.zero)
    if isinstance(module, nn.AvgPool2d | GlobalAvgPool | Clamp):
        return module(x.real())
    assert isinstance(module, nn.MaxPool2d | Flatten), type(module).__name__
    return _Codes(module(x.codes), x.step, x.zero)
