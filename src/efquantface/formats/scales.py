"""For other converters (of vendors' NPUs): a float ONNX and a JSON of scales.

The float network has BatchNorm folded, channels equalized, and the trained, rounded weights. A converter
that uses the scales gets the student's own integers.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import NodeProto
from torch import fx, nn

from efquantface.errors import ParityError
from efquantface.export.onnx_writer import named_onnx, write_onnx
from efquantface.export.parity import check_parity, on_noise
from efquantface.files import write_text
from efquantface.formats.ncnn_form import normalization
from efquantface.formats.table import Choices
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, module_of, name_of, tidy
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear
from efquantface.runtime.sessions import Run, onnxruntime_session, run_onnxruntime


def float_form(student: FaceModel) -> FaceModel:
    """The student without quantizers. Its weights are the values that the integers stand for."""
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
            gm.set_submodule(str(node.target), normalization(module))
        elif isinstance(module, QuantConv2d | QuantLinear | QuantAffine):
            gm.set_submodule(str(node.target), _float_layer(module))
    tidy(gm)
    return FaceModel(gm, student.contract, student.source, False, student.node_names)


def scales(student: FaceModel) -> dict[str, Any]:
    """Scales and zero points of the student's integers, by the tensors of the float ONNX.

    Returns:
        ``weights``: for each weight of a convolution or linear layer its ``bits``, one scale per output
        channel, and the ``axis`` of output channels. ``activations``: for each tensor that is read as
        codes its ``scale``, ``zero_point`` and ``bits``, and whether codes are ``signed``.
        ``requantized``: codes of fewer bits of such a tensor, which only convolutions read. ``layer`` is
        the layer's name in the student. ``code = clip(round(value / scale) + zero_point)``.
    """
    proto, tensors = named_onnx(float_form(student))
    makers = {output: node for node in proto.graph.node for output in node.output}
    weights: dict[str, Any] = {}
    activations: dict[str, Any] = {}
    requantized: dict[str, Any] = {}
    for node, module in module_nodes(student.graph):
        name = name_of(node)
        if isinstance(module, QuantConv2d | QuantLinear):
            weight, axis = _weight_of(makers, tensors[name])
            entry = {"bits": module.bits, "axis": axis, "scales": module.scale().tolist()}
            weights[weight] = {**entry, "layer": name}
        elif isinstance(module, ActivationQuantizer | InputQuantizer):
            scale, zero_point = module.qparams()
            bits = getattr(module, "bits", 8)
            codes = {"scale": scale, "zero_point": zero_point, "bits": bits}
            tensor = tensors[_left_of(student.graph, node)]
            kind = requantized if tensor in activations else activations
            kind[tensor] = {**codes, "signed": module.symmetric, "layer": name}
    return {"weights": weights, "activations": activations, "requantized": requantized}


def _left_of(gm: fx.GraphModule, node: fx.Node) -> str:
    """The node of the float form whose value a quantizer's codes stand for."""
    module = module_of(gm, node)
    while isinstance(module, ActivationQuantizer) and not module.rectified:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node, module = source, module_of(gm, source)
    return name_of(node)


def _weight_of(makers: dict[str, NodeProto], result: str) -> tuple[str, int]:
    """The weight of the layer that gives ``result``, and the axis of its output channels."""
    node = makers[result]
    if node.op_type == "Add":  # a bias behind a matrix product
        node = makers[node.input[0]]
    return node.input[1], 1 if node.op_type == "MatMul" else 0


def refused(model: FaceModel) -> str | None:
    """Why a model has no scales; None for a student."""
    return None if model.quantized else "has no scales; --format scales is for students"


def write(model: FaceModel, files: Sequence[Path], choices: Choices) -> list[str]:
    """Write the float ONNX and the scales beside it; returns lines to print."""
    target, beside = files
    write_onnx(float_form(model), target)
    write_text(beside, json.dumps({"file": target.name, **scales(model)}, indent=1) + "\n")
    return [f"wrote {target} (float, BatchNorm folded) and {beside}"]


def open(file: Path, threads: int | None = None) -> Run:
    """The float file in ONNX Runtime.

    Raises:
        ModelFileError: ONNX Runtime refuses the file.
    """
    return run_onnxruntime(onnxruntime_session(file, threads))


def check(model: FaceModel, files: Sequence[Path]) -> list[str]:
    """Compare the float file with its network on random crops, and the scales with the student's.

    Returns:
        No lines.

    Raises:
        ParityError: the float file or the scales differ, or a scale's tensor is not in the file.
    """
    target, beside = files
    form = float_form(model)
    noise, own = on_noise(form)
    check_parity(form, target, noise, own).check(target)
    try:
        found = json.loads(beside.read_text())
    except (OSError, ValueError) as error:
        raise ParityError(f"{beside}: cannot be read back ({error})") from None
    graph = onnx.load(str(target)).graph
    there = {t.name for t in (*graph.initializer, *graph.input)}
    there |= {output for node in graph.node for output in node.output}
    for kind, entries in scales(model).items():
        wrong = [name for name, entry in entries.items() if found.get(kind, {}).get(name) != entry]
        if wrong:
            raise ParityError(f"{beside}: {kind} of {', '.join(wrong[:3])} are not the student's")
        lost = sorted(set(entries) - there)
        if lost:
            raise ParityError(f"{beside}: {target.name} has no tensors {', '.join(lost[:3])}")
    return []


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
