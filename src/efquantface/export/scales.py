"""The way out to other converters (ncnn, TFLite, vendor NPUs): a float ONNX and a JSON of scales.

The float network has BatchNorm folded, channels equalized and the trained, rounded weights, so that
a converter that takes over the scales gets the student's own integers.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from efquantface.export.onnx_writer import write_onnx
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, module_of, name_of, tidy
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear


def float_form(student: FaceModel) -> FaceModel:
    """The student without quantizers, its weights the values that the integers stand for."""
    gm = copy.deepcopy(student.graph)
    for node, module in module_nodes(gm):
        if isinstance(module, ActivationQuantizer):
            if module.rectified:
                gm.set_submodule(str(node.target), ops.Clamp(0.0, module.max_value))
            else:
                source = node.args[0]
                assert isinstance(source, fx.Node)
                node.replace_all_uses_with(source)
                gm.graph.erase_node(node)
        elif isinstance(module, InputQuantizer):
            gm.set_submodule(str(node.target), _normalization(module))
        elif isinstance(module, QuantConv2d | QuantLinear | QuantAffine):
            gm.set_submodule(str(node.target), _float_layer(module))
    tidy(gm)
    return FaceModel(gm, student.contract, student.source, False, student.node_names)


def scales(student: FaceModel) -> dict[str, Any]:
    """Weights' scales per output channel and activations' scale and zero point, by layer name.

    An activation belongs to the layer whose output it quantizes, ReLU included; ``requantized`` names
    further codes of the same tensor, which only convolutions read.
    """
    layers: dict[str, Any] = {}
    activations: dict[str, Any] = {}
    for node, module in module_nodes(student.graph):
        if isinstance(module, QuantConv2d | QuantLinear):
            layers[name_of(node)] = {"bits": module.bits, "scales": module.scale().tolist()}
        elif isinstance(module, ActivationQuantizer | InputQuantizer):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            scale, zero_point = module.qparams()
            name = name_of(source) if module_of(student.graph, source) else "input"
            activations[name] = {
                "scale": scale,
                "zero_point": zero_point,
                "bits": getattr(module, "bits", 8),
                "signed": module.symmetric,
            }
    return {"weights": layers, "activations": activations}


def write_scales(student: FaceModel, target: Path) -> Path:
    """Write the float ONNX to ``target`` and the scales beside it; returns the JSON's path."""
    write_onnx(float_form(student), target)
    beside = target.with_suffix(".scales.json")
    beside.write_text(json.dumps(scales(student), indent=1) + "\n")
    return beside


def _normalization(module: InputQuantizer) -> ops.Normalize:
    if not module.pixels:
        return ops.Normalize(module.mean.tolist(), module.std.tolist())
    return ops.Normalize([float(module.zero_point_value)] * 3, [1 / module.scale_value] * 3)


@torch.no_grad()
def _float_layer(module: QuantConv2d | QuantLinear | QuantAffine) -> nn.Module:
    made: ops.Conv2d | ops.Linear | ops.Affine
    if isinstance(module, QuantAffine):
        made = ops.Affine(module.channels)
    elif isinstance(module, QuantLinear):
        made = ops.Linear(module.in_features, module.out_features)
    else:
        made = ops.Conv2d(**ops.conv_attrs(module))
    made.weight.copy_(module.quantized_weight())
    assert made.bias is not None
    made.bias.copy_(module.quantized_bias())
    return made
