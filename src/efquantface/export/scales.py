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

from efquantface.errors import ParityError
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.parity import check_parity, on_noise
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
    """Write the float ONNX to ``target`` and the scales beside it; returns the JSON's path.

    Raises:
        ParityError: a file is not what was to be written; both are removed.
    """
    write_onnx(float_form(student), target)
    beside = scales_beside(target)
    beside.write_text(json.dumps(scales(student), indent=1) + "\n")
    try:
        check_scales(student, target)
    except ParityError:
        target.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
        raise
    return beside


def scales_beside(target: Path) -> Path:
    """The JSON of scales that belongs to a float file."""
    return target.with_suffix(".scales.json")


def check_scales(student: FaceModel, target: Path) -> None:
    """Compare a written float file with its network on random crops, and the scales with the student's.

    Raises:
        ParityError: one of both differs.
    """
    form = float_form(student)
    noise, own = on_noise(form)
    check_parity(form, target, noise, own).check(target)
    beside = scales_beside(target)
    try:
        found = json.loads(beside.read_text())
    except (OSError, ValueError) as error:
        raise ParityError(f"{beside}: cannot be read back ({error})") from None
    right = scales(student)
    for kind, entries in right.items():
        wrong = [name for name, entry in entries.items() if found.get(kind, {}).get(name) != entry]
        if wrong:
            raise ParityError(f"{beside}: {kind} of {', '.join(wrong[:3])} are not the student's")


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
