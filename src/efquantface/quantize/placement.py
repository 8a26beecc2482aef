"""Where quantizers stand: on every tensor that an integer kernel reads, as ONNX Runtime fuses them.

ONNX Runtime's CPU provider runs a convolution in integers only where a QuantizeLinear sits directly
on its output. So each Conv, Linear, per-channel affine, Add and average pool is followed by its
quantizer; a ReLU or ReLU6 behind it disappears into that quantizer (zero point 0, range limited);
a PReLU is split into parts that have integer forms, with quantizers of their own for product and
sum. MaxPool, Flatten, padding and ``min(x, 0)`` hand on codes and need no quantizer. The last
linear layer gives the embedding in float.
"""

from __future__ import annotations

import copy

import torch
from torch import fx, nn

from efquantface.errors import ModelFileError
from efquantface.models.graph import insert_after, module_nodes, module_of, tidy
from efquantface.models.model import FaceModel
from efquantface.models.ops import (
    Add,
    Affine,
    Clamp,
    Flatten,
    GlobalAvgPool,
    Normalize,
    ZeroPad,
)
from efquantface.models.passes import split_prelu
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear
from efquantface.quantize.scheme import Scheme

_QUANTIZED_OUTPUT = (nn.Conv2d, nn.Linear, Affine, Add, nn.AvgPool2d, GlobalAvgPool)
_HANDS_ON_CODES = (nn.MaxPool2d, Flatten, ZeroPad, Clamp)
Quantizer = ActivationQuantizer | InputQuantizer
_LEAST_SLOPE = 0.01  # unit in which a channel's scale is trained where the scale itself is less


def quantize(model: FaceModel, scheme: Scheme) -> FaceModel:
    """A copy of a float model with quantizers placed; their ranges are still to be set.

    Raises:
        ModelFileError: the graph does not end in a linear layer, or is quantized already.
    """
    if model.quantized:
        raise ModelFileError(f"{model.source}: is quantized already")
    gm = split_prelu(copy.deepcopy(model.graph))
    _place_input(gm)
    output = next(n for n in gm.graph.nodes if n.op == "output").args[0]
    if not isinstance(module_of(gm, output), nn.Linear):
        raise ModelFileError(
            f"{model.source or 'model'}: the embedding does not come from a linear layer"
        )
    for node, module in module_nodes(gm):
        if node is output or not isinstance(module, _QUANTIZED_OUTPUT):
            continue
        _place_output(gm, node, scheme)
    _requantize_clamps(gm, scheme)
    for node, module in module_nodes(gm):
        if isinstance(module, nn.Conv2d | nn.Linear | Affine):
            gm.set_submodule(str(node.target), _quantized_layer(module, scheme.weight_bits))
    tidy(gm)
    gm.train()
    return FaceModel(gm, model.contract, model.source, True, model.node_names, list(model.notes))


def quantizer_before(gm: fx.GraphModule, node: fx.Node) -> Quantizer:
    """The quantizer whose codes arrive at ``node``."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    module = module_of(gm, source)
    while not isinstance(module, ActivationQuantizer | InputQuantizer):
        assert isinstance(module, _HANDS_ON_CODES), f"{source.target} is not quantized"
        parent = source.args[0]
        assert isinstance(parent, fx.Node)
        source, module = parent, module_of(gm, parent)
    return module


def output_layer(gm: fx.GraphModule) -> QuantLinear:
    """The linear layer that gives the embedding."""
    node = next(n for n in gm.graph.nodes if n.op == "output").args[0]
    assert isinstance(node, fx.Node)
    layer = module_of(gm, node)
    assert isinstance(layer, QuantLinear)
    return layer


def refresh_biases(gm: fx.GraphModule) -> list[str]:
    """Tell every layer the step of its input, which its int32 bias is a multiple of.

    To be called after input steps have changed (ranges set, an epoch trained). Returns the layers
    that had nearly dead channels, whose weight step was raised to keep the bias inside int32.
    """
    guarded = []
    for node, module in module_nodes(gm):
        if isinstance(module, QuantConv2d | QuantLinear | QuantAffine):
            step, _ = quantizer_before(gm, node).qparams()
            count = module.refresh_bias(step)
            if count:
                guarded.append(f"{node.target} ({count})")
    return guarded


def _place_output(gm: fx.GraphModule, node: fx.Node, scheme: Scheme) -> None:
    """A quantizer on ``node``, taking in the ReLU behind it where that is its only reader."""
    users = list(node.users)
    activation = module_of(gm, users[0]) if len(users) == 1 else None
    rectified, max_value = False, None
    if isinstance(activation, Clamp) and activation.low == 0:
        users[0].replace_all_uses_with(node)
        gm.graph.erase_node(users[0])
        rectified, max_value = True, activation.high
    quantizer = ActivationQuantizer(scheme.activation_bits, rectified, max_value)
    insert_after(gm, node, f"{node.target}_q", quantizer)


def _requantize_clamps(gm: fx.GraphModule, scheme: Scheme) -> None:
    """A clamp at a value that need not be a code gets a quantizer of its own."""
    for node, module in module_nodes(gm):
        if isinstance(module, Clamp) and {module.low, module.high} - {None, 0.0}:
            rectified = module.low == 0
            quantizer = ActivationQuantizer(scheme.activation_bits, rectified, module.high)
            insert_after(gm, node, f"{node.target}_q", quantizer)


def _quantized_layer(layer: nn.Conv2d | nn.Linear | Affine, bits: int) -> nn.Module:
    if isinstance(layer, Affine):
        quantized = QuantAffine(layer.channels)
        quantized.latent_bias.requires_grad_(layer.bias.requires_grad)
        quantized.set_weight(layer.weight.detach(), layer.bias.detach(), floor=_LEAST_SLOPE)
        return quantized
    layer_quantizer: QuantConv2d | QuantLinear
    if isinstance(layer, nn.Conv2d):
        layer_quantizer = QuantConv2d(
            layer.in_channels,
            layer.out_channels,
            (layer.kernel_size[0], layer.kernel_size[1]),
            (layer.stride[0], layer.stride[1]),
            (int(layer.padding[0]), int(layer.padding[1])),
            (layer.dilation[0], layer.dilation[1]),
            layer.groups,
            bits,
        )
    else:
        layer_quantizer = QuantLinear(layer.in_features, layer.out_features, bits)
    assert layer.bias is not None
    layer_quantizer.set_weight(layer.weight.detach(), layer.bias.detach())
    return layer_quantizer


def _place_input(gm: fx.GraphModule) -> None:
    """Replace the normalization in front by the fixed input quantizer."""
    placeholder = next(n for n in gm.graph.nodes if n.op == "placeholder")
    first = next(iter(placeholder.users))
    module = module_of(gm, first)
    if not isinstance(module, Normalize):
        first = insert_after(gm, placeholder, "normalize", Normalize([0.0] * 3, [1.0] * 3))
        module = Normalize([0.0] * 3, [1.0] * 3)
    mean, std = module.mean.double(), module.std.double()
    user = next(iter(first.users))
    conv = module_of(gm, user)
    folds = isinstance(conv, nn.Conv2d) and len(first.users) == 1 and conv.groups == 1
    padded = not folds or any(int(p) for p in conv.padding)  # type: ignore[union-attr]
    uniform = bool((mean == mean[0]).all() and (std == std[0]).all())
    if folds and (uniform or not padded):
        assert isinstance(conv, nn.Conv2d)
        step = float(1 / std.mean())
        zero = int(min(max(round(float(mean.mean())), 0), 255))
        _absorb_normalization(conv, mean, std, step, zero)
        pixels = True
    else:
        low, high = float((-mean / std).min()), float(((255 - mean) / std).max())
        low, high = min(low, 0.0), max(high, 0.0)
        step = (high - low) / 255
        zero, pixels = round(-low / step), False
    quantizer = InputQuantizer(mean.tolist(), std.tolist(), step, zero, pixels)
    gm.set_submodule(str(first.target), quantizer)


@torch.no_grad()
def _absorb_normalization(
    conv: nn.Conv2d, mean: torch.Tensor, std: torch.Tensor, step: float, zero: int
) -> None:
    """``conv((p - mean) / std) = conv'((p - zero) * step)`` away from a zero-padded border."""
    weight = conv.weight.double()
    assert conv.bias is not None
    shift = ((zero - mean) / std).view(1, -1, 1, 1)
    conv.bias.copy_(conv.bias.double() + (weight * shift).sum(dim=(1, 2, 3)))
    conv.weight.copy_(weight / (std * step).view(1, -1, 1, 1))
