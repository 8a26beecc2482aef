"""A student as ncnn computes it, and what ncnn cannot compute of one.

ncnn rounds where an integer layer reads. Everything between two such layers is float: sums, PReLUs and
poolings of values that are not rounded. So quantizers that no convolution or linear layer reads are
taken out. Each of these layers gets a copy of the quantizer that it reads. Codes are -127 to 127.

Nothing has to be calibrated again: with fewer roundings the student is nearer to its float form.
"""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import fx, nn

from efquantface.formats.openvino import for_openvino
from efquantface.graph import ops
from efquantface.graph.graph import add_module, module_nodes, name_of, shapes, skip, tidy
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear
from efquantface.quantize.placement import quantizer_before

IntegerLayer = QuantConv2d | QuantLinear | QuantAffine
LIMIT = 127  # ncnn's codes are -127 to 127
_WRITTEN = (
    *(ops.Normalize, ActivationQuantizer, QuantConv2d, QuantLinear, QuantAffine, ops.Linear),
    *(ops.Affine, ops.PReLU, ops.Clamp, ops.Add, ops.Multiply, ops.Sigmoid, ops.MaxPool2d),
    *(ops.AvgPool2d, ops.GlobalAvgPool, ops.ZeroPad, ops.Flatten, ops.Reshape, ops.Transpose),
    *(ops.Slice, ops.Concat, ops.L2Normalize),
)
_MOST_AXES = 4  # axes of a tensor, with its batch, at most


def for_ncnn(student: FaceModel) -> FaceModel:
    """A copy of the student, with quantizers in front of integer layers only and PReLUs in one piece."""
    form, _ = for_openvino(student)  # a copy
    gm = form.graph
    placed = [n for n, m in module_nodes(gm) if isinstance(m, ActivationQuantizer)]
    for node, module in module_nodes(gm):
        if isinstance(module, IntegerLayer):
            _read_codes(gm, node)
    for node in placed:
        quantizer = gm.get_submodule(str(node.target))
        assert isinstance(quantizer, ActivationQuantizer)
        if quantizer.rectified:
            gm.set_submodule(str(node.target), ops.Clamp(0.0, quantizer.max_value))
        else:
            skip(gm, node)
    for node, module in module_nodes(gm):
        if isinstance(module, InputQuantizer):
            gm.set_submodule(str(node.target), normalization(module))
    tidy(gm)
    return form


def normalization(module: InputQuantizer) -> ops.Normalize:
    """The normalization that a quantizer of pixels contains."""
    if not module.pixels:
        return ops.Normalize(module.mean.tolist(), module.std.tolist())
    return ops.Normalize([float(module.zero_point_value)] * 3, [1 / module.scale_value] * 3)


def _read_codes(gm: fx.GraphModule, node: fx.Node) -> None:
    """Give an integer layer a copy of the quantizer whose codes it reads."""
    like = quantizer_before(gm, node)
    scale, _ = like.qparams()
    made = ActivationQuantizer(8, symmetric=True)
    if isinstance(like, ActivationQuantizer):
        made.qmin, made.qmax = like.qmin, like.qmax
    made.qmin = max(made.qmin, -LIMIT)
    with torch.no_grad():
        made.log_scale.fill_(math.log(scale))
    name = add_module(gm, f"{node.target}_in", made.eval())
    source = node.args[0]
    assert isinstance(source, fx.Node)
    with gm.graph.inserting_before(node):
        codes = gm.graph.call_module(name, (source,))
    node.replace_input_with(source, codes)


def unwritten(form: FaceModel) -> list[str]:
    """Operators of a student in ncnn's form that have no layer in ncnn: number and name of each kind."""
    found: Counter[str] = Counter()
    sizes = shapes(form.graph, form.contract.height, form.contract.width)
    for node, module in module_nodes(form.graph):
        source = sizes[name_of(node.all_input_nodes[0])]
        said = _unwritten(module, len(sizes[name_of(node)]), source)
        if said:
            found[said] += 1
    return [f"{count} {name}" for name, count in found.items()]


def _unwritten(module: nn.Module, rank: int, source: tuple[int, ...]) -> str | None:
    """The name of an operator without a layer, given the rank of its result; None where it has one."""
    name, axes = type(module).__name__, (*range(1, _MOST_AXES + 1),)
    if not isinstance(module, _WRITTEN):
        return name
    if isinstance(module, QuantConv2d) and not _plain(module):
        return f"convolution of {module.groups} groups"
    if isinstance(module, ops.MaxPool2d | ops.AvgPool2d) and _rounds_up(module, source):
        return f"{name} of ceil_mode"
    if isinstance(module, QuantLinear | ops.Linear | ops.L2Normalize):
        axes = (2,)
    elif isinstance(module, ops.Affine | ops.PReLU):
        axes = (2, _MOST_AXES)
    elif isinstance(module, ops.Transpose | ops.ZeroPad):
        axes = (_MOST_AXES,)
    return None if rank in axes else f"{name.removeprefix('Quant')} of {rank} axes"


def _plain(module: QuantConv2d) -> bool:
    """Whether a convolution is dense or depthwise. In others ncnn has one scale per group."""
    return module.groups in (1, module.in_channels) and (
        module.groups == 1 or module.groups == module.out_channels
    )


def _rounds_up(module: ops.MaxPool2d | ops.AvgPool2d, source: tuple[int, ...]) -> bool:
    """Whether a pooling has windows beyond the map, which runtimes count differently."""
    attrs = module.attrs()
    if not attrs["ceil_mode"]:
        return False
    sides = zip(source[2:], attrs["kernel_size"], attrs["stride"], attrs["padding"], strict=True)
    return any((size + 2 * pad - kernel) % stride for size, kernel, stride, pad in sides)
