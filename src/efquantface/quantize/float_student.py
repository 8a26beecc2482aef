"""From a float network to the form that the trainer takes, and back: a student's layers, not quantized.

Weights are trained in units of their channel's largest weight, as in quantized students. So one learning
rate fits all channels of all networks.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor

from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, tidy
from efquantface.graph.model import FaceModel
from efquantface.quantize import native
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear
from efquantface.quantize.placement import quantized_layer

_BITS = 8  # of layers that are switched off; the number has no effect


class TrainedPReLU(ops.PReLU):
    """A PReLU that trains with one pass over memory."""

    def forward(self, x: Tensor) -> Tensor:
        return native.leaky(x, self.slope) if native.applies(x) else super().forward(x)


def trainable(model: FaceModel) -> FaceModel:
    """A copy of a float model whose layers train as a student's do, with quantizers switched off."""
    gm = copy.deepcopy(model.graph)
    for node, module in module_nodes(gm):
        layer: QuantConv2d | QuantLinear | QuantAffine
        if isinstance(module, ops.Conv2d | ops.Linear):
            layer = quantized_layer(module, _BITS)
            layer.log_scale.requires_grad_(False)
        elif isinstance(module, ops.Affine):
            layer = QuantAffine(module.channels)
            layer.set_weight(module.weight.detach(), module.bias.detach())
        elif isinstance(module, ops.PReLU):
            gm.set_submodule(str(node.target), _prelu(TrainedPReLU, module))
            continue
        else:
            continue
        layer.enabled = False
        gm.set_submodule(str(node.target), layer)
    gm.train()
    return dataclasses.replace(model, graph=tidy(gm))


@torch.no_grad()
def plain(model: FaceModel) -> FaceModel:
    """The float model of a trained model of :func:`trainable`."""
    gm = copy.deepcopy(model.graph).cpu()
    for node, module in module_nodes(gm):
        name = str(node.target)
        if isinstance(module, QuantConv2d):
            attrs = ops.conv_attrs(module)
            shape = {k: attrs[k] for k in ("stride", "padding", "dilation", "groups")}
            gm.set_submodule(name, ops.conv_from(module.weight, module.bias, **shape))
        elif isinstance(module, QuantLinear):
            gm.set_submodule(name, ops.linear_from(module.weight, module.bias))
        elif isinstance(module, QuantAffine):
            affine = ops.Affine(module.channels)
            affine.weight.copy_(module.weight)
            affine.bias.copy_(module.bias)
            gm.set_submodule(name, affine)
        elif isinstance(module, TrainedPReLU):
            gm.set_submodule(name, _prelu(ops.PReLU, module))
    return dataclasses.replace(model, graph=tidy(gm).eval())


def _prelu(kind: type[ops.PReLU], other: ops.PReLU) -> ops.PReLU:
    made = kind(other.channels)
    made.load_state_dict(other.state_dict())
    return made
