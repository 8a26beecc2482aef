"""x86 machines without VNNI: can the 16-bit sums of their u8 x s8 kernels overflow?

There two neighbouring products of a uint8 code and an int8 weight are added in int16, which
saturates at 32,767 without a word (``vpmaddubsw``). With weights of 7 bits the sum stays below
255 * 126 = 32,130. Depthwise convolutions use other kernels. ONNX Runtime avoids it at the price of
speed with the session option ``session.x64quantprecision``, which we set and others must be told of;
OpenVINO has no such option.
"""

from __future__ import annotations

import torch
from torch import nn

from efquantface.graph.graph import module_nodes, name_of
from efquantface.graph.model import FaceModel
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.placement import quantizer_before
from efquantface.runtime.processor import lacks_vnni
from efquantface.runtime.sessions import EXACT_OPTION

_INT16 = 32767


def saturating_layers(student: FaceModel) -> list[str]:
    """Layers in which some pair of weights and codes exceeds int16.

    The two largest weights of one sign in an output channel are taken as neighbours, whatever order
    a kernel reads them in, so a layer that is not named cannot saturate.
    """
    found = []
    for node, module in module_nodes(student.graph):
        if not isinstance(module, QuantConv2d | QuantLinear) or _depthwise(module):
            continue
        before = quantizer_before(student.graph, node)
        if before.symmetric:
            continue  # signed codes take another kernel
        codes, _ = module.weight_codes()
        if _largest_pair(codes) * int(getattr(before, "qmax", 255)) > _INT16:
            found.append(name_of(node))
    return found


def describe(student: FaceModel) -> str:
    """One line for the user."""
    layers = saturating_layers(student)
    if not layers:
        return "16-bit sums cannot saturate: safe on x86 machines without VNNI"
    return (
        f"on x86 machines without VNNI{' (this is one)' if lacks_vnni() else ''}, 16-bit sums can "
        f"saturate in {len(layers)} layers: ONNX Runtime needs the session option "
        f"{EXACT_OPTION}=1 there, OpenVINO --bits w7a8"
    )


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, QuantConv2d) and module.groups > 1


def _largest_pair(codes: torch.Tensor) -> int:
    """Largest sum of two weights of one sign in one output channel (codes (O,...))."""
    flat = codes.flatten(1).int()
    count = min(2, flat.shape[1])
    positive = flat.clamp(min=0).topk(count, dim=1).values.sum(dim=1)
    negative = (-flat).clamp(min=0).topk(count, dim=1).values.sum(dim=1)
    return int(torch.maximum(positive, negative).max())
