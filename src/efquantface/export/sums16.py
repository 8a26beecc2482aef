"""What 16-bit sums lose in ONNX Runtime on x86 processors without VNNI.

There a kernel multiplies unsigned codes by signed weights, two inputs at a time. It adds both products
in int16, which saturates at -32,768 and 32,767 (``vpmaddubsw``). Pairs are neighbours along the inputs:
of a convolution in the order row, column, channel (NHWC), of a linear layer in the order of its inputs.
Kernels for depthwise convolutions and for signed codes widen first and lose nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.scheme import INT16

_VALUES = 2**24  # of pairs that are computed together


def lost(layer: QuantConv2d | QuantLinear, codes: Tensor, zero_point: int) -> Tensor | None:
    """What saturation takes from a layer's accumulators.

    Args:
        layer: gives the weights.
        codes: unsigned codes, (N,C,H,W) or (...,K).
        zero_point: of the codes; padding is filled with it.

    Returns:
        A tensor of the accumulators' shape, to be subtracted from exact ones. None where no sum can
        saturate, as in depthwise convolutions.
    """
    weight = layer.weight_codes()[0].float()
    if isinstance(layer, QuantLinear):
        rows = codes.reshape(-1, codes.shape[-1])
        missing = _lost(weight, rows.T[None].float())
        return None if missing is None else missing[0].T.reshape(*codes.shape[:-1], -1)
    groups, inputs = layer.groups, weight.shape[1]
    if inputs == 1:
        return None
    size = weight.shape[2] * weight.shape[3]
    columns, shape = _columns(layer, codes, zero_point)  # (N, C, kh*kw, L)
    found = []
    for g in range(groups):
        part = columns[:, g * inputs : (g + 1) * inputs].transpose(1, 2)
        own = weight.chunk(groups)[g].permute(0, 2, 3, 1).reshape(-1, size * inputs)
        found.append(_lost(own, part.reshape(len(codes), size * inputs, -1)))
    if all(f is None for f in found):
        return None
    outputs = len(weight) // groups
    empty = torch.zeros(len(codes), outputs, columns.shape[-1])
    return torch.cat([empty if f is None else f for f in found], dim=1).view(len(codes), -1, *shape)


def _columns(layer: QuantConv2d, codes: Tensor, zero_point: int) -> tuple[Tensor, tuple[int, int]]:
    """The codes (N,C,kh*kw,L) that each output of a convolution reads; the output's height, width."""
    top, left = layer.padding
    padded = F.pad(codes.float(), (left, left, top, top), value=float(zero_point))
    spans = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    height, width = (
        (length - span) // stride + 1
        for length, span, stride in zip(padded.shape[2:], spans, layer.stride, strict=True)
    )
    columns = F.unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride)
    return columns.view(len(codes), codes.shape[1], -1, height * width), (height, width)


def _lost(weight: Tensor, codes: Tensor) -> Tensor | None:
    """How much pairs of products exceed int16, summed, (N,O,L), for weights (O,K) and codes (N,K,L)."""
    if weight.shape[1] % 2:
        weight, codes = F.pad(weight, (0, 1)), F.pad(codes, (0, 0, 0, 1))
    first, second = weight[:, 0::2], weight[:, 1::2]
    most = torch.maximum(
        first.clamp(min=0) + second.clamp(min=0), (-first).clamp(min=0) + (-second).clamp(min=0)
    )
    outputs, pairs = torch.nonzero(most * codes.max() > INT16, as_tuple=True)
    if not len(outputs):
        return None
    total = torch.zeros(len(codes), len(weight), codes.shape[2])
    at_once = max(1, _VALUES // (len(codes) * codes.shape[2]))
    for start in range(0, len(outputs), at_once):
        o, p = outputs[start : start + at_once], pairs[start : start + at_once]
        sums = codes[:, 2 * p] * first[o, p, None] + codes[:, 2 * p + 1] * second[o, p, None]
        total.index_add_(1, o, sums - sums.clamp(-INT16 - 1, INT16))
    return total
