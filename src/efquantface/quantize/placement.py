"""Where quantizers stand: on every tensor that an integer kernel reads, as ONNX Runtime fuses them.

ONNX Runtime's CPU provider runs a convolution in integers only with a QuantizeLinear directly on its
output. So a quantizer follows each convolution, linear layer, per-channel affine, addition and average
pooling. It absorbs a ReLU or ReLU6 behind the layer (zero point 0, limited range). A PReLU is split into
parts that have integer forms, with quantizers for product and sum. Without slopes above 1, the product's
quantizer absorbs the PReLU's limit. MaxPool, Flatten, padding and ``min(x, 0)`` hand on codes and need
no quantizer. The end of a network stays in float (:mod:`ending`), above all the embedding.

Transformer-like parts are islands: LayerNorm, GELU, softmax and products of two activations stay in
float. Each layer with weights behind them gets a quantizer in front. A linear layer over the last axis
of a map gives float, which ONNX Runtime fuses (MatMulIntegerToFloat): an island follows it anyway.
"""

from __future__ import annotations

import copy
import dataclasses

from torch import fx, nn

from efquantface.errors import ModelFileError
from efquantface.graph import ops
from efquantface.graph.graph import (
    insert_after,
    module_nodes,
    module_of,
    name_of,
    shapes,
    tidy,
)
from efquantface.graph.model import FaceModel
from efquantface.graph.rewrites import as_maps, split_prelu
from efquantface.quantize.codes import codes_in
from efquantface.quantize.ending import ending
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.input import place_input
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear
from efquantface.quantize.narrow import Quantizer, narrow, quantizer_of
from efquantface.quantize.pairs import pair_limit
from efquantface.quantize.scheme import Scheme

_QUANTIZED_OUTPUT = (
    *(ops.Conv2d, ops.Linear, ops.Affine, ops.Add, ops.AvgPool2d, ops.GlobalAvgPool),
    *(ops.Multiply, ops.Sigmoid),
)
_READS_CODES = (ops.Conv2d, ops.Linear, ops.Affine)
_LEAST_SLOPE = 0.01  # least unit in which a channel's scale is trained


def quantize(model: FaceModel, scheme: Scheme) -> FaceModel:
    """A copy of a float model with quantizers, whose ranges are not set yet.

    Raises:
        ModelFileError: the graph has no convolution and no linear layer, or is quantized already.
        RecipeError: the scheme names a layer that the network does not have.
    """
    if model.quantized:
        raise ModelFileError(f"{model.source}: is quantized already")
    gm = copy.deepcopy(model.graph)
    layers = [n for n, m in module_nodes(gm) if isinstance(m, ops.Conv2d | ops.Linear)]
    if not layers:
        raise ModelFileError(
            f"{model.source or 'model'}: holds no convolution and no linear layer; nothing in it can be "
            "compressed"
        )
    size = (model.contract.height, model.contract.width)
    end = ending(gm, shapes(gm, *size))
    split_prelu(as_maps(gm, *size, kept=end), end)
    place_input(gm, scheme.symmetric)
    codes = codes_in(gm, {name: len(shape) for name, shape in shapes(gm, *size).items()})
    codes -= set(end)
    for node, module in module_nodes(gm):
        if node in codes and isinstance(module, _QUANTIZED_OUTPUT):
            _place_output(gm, node, scheme.symmetric)
    _requantize_clamps(gm, scheme.symmetric, codes)
    _place_behind_islands(gm, scheme.symmetric, codes, end)
    outer = {layers[0], layers[-1], *end}
    thin = {n for n, m in module_nodes(gm) if n in layers and _is_thin(m, n is layers[0])}
    bits = {n: scheme.of(name_of(n), n in outer, n in thin) for n in layers}
    scheme.check_names([name_of(n) for n in layers])
    for node, module in module_nodes(gm):
        if isinstance(module, ops.Affine) and node not in end:
            gm.set_submodule(str(node.target), _quantized_affine(module))
        elif node in bits:
            gm.set_submodule(str(node.target), quantized_layer(module, bits[node].weight))
    narrow(gm, {node: b.activation for node, b in bits.items()}, size, scheme.symmetric)
    if not scheme.full_range:
        limit_pairs(gm)
    tidy(gm)
    gm.train()
    return dataclasses.replace(model, graph=gm, quantized=True, notes=list(model.notes))


def _is_thin(module: nn.Module, first: bool) -> bool:
    """Whether it is a depthwise convolution or the network's first one: few weights, read often."""
    return isinstance(module, ops.Conv2d) and (first or module.groups == module.in_channels > 1)


def limit_pairs(gm: fx.GraphModule) -> None:
    """Set each layer's limit for pairs of weights, under which no 16-bit sum can overflow."""
    for node, module in module_nodes(gm):
        if isinstance(module, QuantConv2d | QuantLinear):
            largest = quantizer_before(gm, node).largest_code
            module.pair_limit = pair_limit(largest, module.bits)


def quantizer_before(gm: fx.GraphModule, node: fx.Node) -> Quantizer:
    """The quantizer whose codes ``node`` reads."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return quantizer_of(gm, source)


def refresh_biases(gm: fx.GraphModule) -> list[str]:
    """Tell each layer the scale of its input, of which its int32 bias is a multiple.

    Call it when input scales have changed (ranges set, an epoch trained). Returns the layers with nearly
    dead channels, whose weight scale was raised so that the bias fits into int32.
    """
    guarded = []
    for node, module in module_nodes(gm):
        if isinstance(module, QuantConv2d | QuantLinear | QuantAffine) and module.enabled:
            scale, _ = quantizer_before(gm, node).qparams()
            count = module.refresh_bias(scale)
            if count:
                guarded.append(f"{node.target} ({count})")
    return guarded


def _place_output(gm: fx.GraphModule, node: fx.Node, symmetric: bool) -> None:
    """Place a quantizer on ``node``. It absorbs a ReLU behind it that is its only reader."""
    users = list(node.users)
    activation = module_of(gm, users[0]) if len(users) == 1 else None
    rectified, max_value = False, None
    if isinstance(activation, ops.Clamp) and activation.low == 0:
        users[0].replace_all_uses_with(node)
        gm.graph.erase_node(users[0])
        rectified, max_value = True, activation.high
    quantizer = ActivationQuantizer(8, rectified, max_value, symmetric)
    insert_after(gm, node, f"{node.target}_q", quantizer)


def _place_behind_islands(
    gm: fx.GraphModule, symmetric: bool, codes: set[fx.Node], end: list[fx.Node]
) -> None:
    """Place a quantizer in front of each layer with weights that would read a float tensor."""
    for node, module in module_nodes(gm):
        source = node.args[0]
        if not isinstance(module, _READS_CODES) or not isinstance(source, fx.Node):
            continue
        if isinstance(module, ops.Affine) and node in end:
            continue  # in float, as the whole end
        if source not in codes and not isinstance(module_of(gm, source), ActivationQuantizer):
            others = [u for u in source.users if not isinstance(module_of(gm, u), _READS_CODES)]
            quantizer = ActivationQuantizer(8, symmetric=symmetric)
            placed = insert_after(gm, source, f"{source.target}_q", quantizer)
            for user in others:
                user.replace_input_with(placed, source)


def _requantize_clamps(gm: fx.GraphModule, symmetric: bool, codes: set[fx.Node]) -> None:
    """Place a quantizer behind each clamp at a value that need not be a code."""
    for node, module in module_nodes(gm):
        if (
            node in codes
            and isinstance(module, ops.Clamp)
            and {module.low, module.high} - {None, 0.0}
        ):
            rectified = module.low == 0
            quantizer = ActivationQuantizer(8, rectified, module.high, symmetric)
            insert_after(gm, node, f"{node.target}_q", quantizer)


def _quantized_affine(layer: ops.Affine) -> QuantAffine:
    is_slope = not layer.bias.requires_grad
    quantized = QuantAffine(layer.channels, is_slope and bool((layer.weight <= 0).all()))
    quantized.latent_bias.requires_grad_(not is_slope)
    quantized.set_weight(layer.weight.detach(), layer.bias.detach(), floor=_LEAST_SLOPE)
    return quantized


def quantized_layer(layer: nn.Module, bits: int) -> QuantConv2d | QuantLinear:
    """A convolution or linear layer in its integer form, without a scale yet."""
    quantized: QuantConv2d | QuantLinear
    if isinstance(layer, ops.Conv2d):
        quantized = QuantConv2d(**ops.conv_attrs(layer), bits=bits)
    else:
        assert isinstance(layer, ops.Linear)
        quantized = QuantLinear(layer.in_features, layer.out_features, bits)
    assert layer.bias is not None
    quantized.set_weight(layer.weight.detach(), layer.bias.detach())
    return quantized
