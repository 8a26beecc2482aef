"""A student in ncnn's form (:mod:`ncnn_form`) as ncnn's layers.

A convolution quantizes its own input, with one scale, and gives float. Where all its readers are
convolutions with one scale, it gives their codes instead (requantization).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import fx, nn

from efquantface.export.values import array
from efquantface.formats.ncnn_form import LIMIT, IntegerLayer
from efquantface.formats.ncnn_layers import Network, Parameter
from efquantface.formats.symmetric import float_bias
from efquantface.graph import ops
from efquantface.graph.graph import INPUT, module_nodes, module_of, name_of, output_node, shapes
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

IN, OUT = "in0", "out0"  # the names that ncnn's own converter gives
_SCALE_A_CHANNEL, _SCALE_A_GROUP, _REQUANTIZED = 2, 1, 100  # int8_scale_term
_RELU, _CLIP = 1, 3  # activation_type
_PERMUTED = {(0, 1, 2): 0, (0, 2, 1): 1, (1, 0, 2): 2, (1, 2, 0): 3, (2, 0, 1): 4, (2, 1, 0): 5}
_ADD, _MULTIPLY, _DIVIDE, _MAXIMUM = 0, 2, 3, 4  # op_type of BinaryOp
_L2 = 8  # operation of Reduction
_LONGEST = 200  # letters of a name, at most; ncnn reads 255


@dataclass
class Written:
    """A network, and its blobs for a form's values.

    Attributes:
        blobs: by the node's name. A value without a blob of its own is missing.
        steps: scales of codes, by blob, where a blob holds codes in place of values.
    """

    network: Network = field(default_factory=Network)
    blobs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)


def to_ncnn(form: FaceModel) -> Written:
    """The network of a form.

    Args:
        form: the student in ncnn's form (:func:`for_ncnn`), with a layer for each of its operators
            (:func:`unwritten`).
    """
    writer = _Writer(form)
    for node, module in module_nodes(form.graph):
        writer.write(node, module)
    return writer.made


class _Writer:
    def __init__(self, form: FaceModel) -> None:
        self.gm, self.contract, self.made = form.graph, form.contract, Written()
        self.sizes = shapes(form.graph, form.contract.height, form.contract.width)
        self.output = output_node(form.graph)
        self.sources: dict[str, str] = {INPUT: IN}  # blob of each value
        self.labels: dict[str, str] = {}  # by the node's name
        self.shape: tuple[int, ...] = ()  # of the value being written
        size = {0: self.contract.width, 1: self.contract.height, 2: 3}
        self.made.network.add("Input", IN, (), IN, dict(size))

    def write(self, node: fx.Node, module: nn.Module) -> None:
        """Append the layers of one node."""
        name = name_of(node)
        if name in self.sources:  # a limit that the convolution in front applies
            return
        inputs = [self.sources[name_of(source)] for source in node.all_input_nodes]
        if (
            isinstance(module, ops.Flatten)
            and len(self.sizes[name_of(node.all_input_nodes[0])]) == 2
        ):
            self.sources[name] = inputs[0]
            return
        if isinstance(module, ActivationQuantizer):
            self.sources[name] = self._limited(name, module, inputs[0])
            return
        last = self._limit_behind(node) if isinstance(module, IntegerLayer) else node
        blob = OUT if last is self.output else self._label(name_of(last))
        if isinstance(module, IntegerLayer):
            self._integer_layer(node, module, inputs[0], blob, last)
        elif isinstance(module, ops.Normalize):
            blob = self._normalize(module, blob)
        else:
            self.shape = self.sizes[name]
            _FORMS[type(module)](self, self._label(name), module, inputs, blob)
        self.sources[name] = self.sources[name_of(last)] = blob
        self.made.blobs[name_of(last)] = blob

    def _label(self, name: str) -> str:
        """An operator's name as ncnn can read it: ASCII, not too long, unique."""
        if name not in self.labels:
            label = re.sub(r"\W", "_", name, flags=re.ASCII)[:_LONGEST]
            while label in (IN, OUT) or label in self.labels.values():
                label += "_"
            self.labels[name] = label
        return self.labels[name]

    def add(
        self, kind: str, name: str, inputs: Sequence[str], blob: str, **parameters: Parameter
    ) -> None:
        """Append a layer. Its parameters are called ``p0``, ``p11`` and so on."""
        numbered = {int(key[1:]): value for key, value in parameters.items()}
        self.made.network.add(kind, name, inputs, blob, numbered)

    def _normalize(self, module: ops.Normalize, blob: str) -> str:
        """From the contract's normalization of the file's input to the first layer's."""
        mean, std = (np.asarray(v, np.float64) for v in (self.contract.mean, self.contract.std))
        own_mean, own_std = (array(v).astype(np.float64) for v in (module.mean, module.std))
        factor, offset = std / own_std, (mean - own_mean) / own_std
        if np.allclose(factor, 1, rtol=1e-6, atol=0) and np.allclose(offset, 0, rtol=0, atol=1e-7):
            return IN
        self.add("Scale", blob, (IN,), blob, p0=3, p1=1)
        self.made.network.floats(factor)
        self.made.network.floats(offset)
        return blob

    def _limited(self, name: str, module: ActivationQuantizer, source: str) -> str:
        """The values that a layer rounds, limited to the codes that it uses."""
        if _whole(module):
            return source
        step = module.qparams()[0]
        label = self._label(name)
        self.add("Clip", label, (source,), label, p0=module.qmin * step, p1=module.qmax * step)
        return label

    def _limit_behind(self, node: fx.Node) -> fx.Node:
        """The ReLU or limit behind a convolution that becomes part of it; otherwise the node itself."""
        users = list(node.users)
        follows = module_of(self.gm, users[0]) if len(users) == 1 else None
        joined = isinstance(follows, ops.Clamp) and follows.low == 0
        return (
            users[0] if joined and not isinstance(module_of(self.gm, node), QuantLinear) else node
        )

    def _integer_layer(
        self, node: fx.Node, module: IntegerLayer, source: str, blob: str, last: fx.Node
    ) -> None:
        codes, scales = (array(t) for t in module.weight_codes())
        before = module_of(self.gm, node.all_input_nodes[0])
        assert isinstance(before, ActivationQuantizer)
        step, _ = before.qparams()
        network = self.made.network
        if isinstance(module, QuantLinear):
            label = self._label(name_of(node))
            sizes = {0: len(scales), 1: 1, 2: int(codes.size), 8: _SCALE_A_CHANNEL}
            network.add("InnerProduct", label, (source,), blob, dict(sizes))
            requantized = None
        else:
            requantized = self._step_read(last)
            kind, parameters = _convolution(module)
            parameters[6] = codes.size
            parameters[8] += _REQUANTIZED if requantized else 0
            limit = module_of(self.gm, last)
            if isinstance(limit, ops.Clamp):
                parameters |= (
                    {9: _RELU} if limit.high is None else {9: _CLIP, 10: (0.0, float(limit.high))}
                )
            network.add(kind, self._label(name_of(node)), (source,), blob, parameters)
        network.codes(codes)
        network.floats(float_bias(module, step))
        network.floats(1 / scales)
        network.floats([1 / step])
        if requantized:
            network.floats([1 / requantized])
            self.made.steps[blob] = requantized

    def _step_read(self, last: fx.Node) -> float | None:
        """The scale where all readers are convolutions with one scale; None otherwise."""
        steps = set()
        for user in last.users:
            quantizer = module_of(self.gm, user)
            if not isinstance(quantizer, ActivationQuantizer) or not _whole(quantizer):
                return None
            readers = [module_of(self.gm, reader) for reader in user.users]
            if not all(isinstance(reader, QuantConv2d | QuantAffine) for reader in readers):
                return None
            steps.add(quantizer.qparams()[0])
        return steps.pop() if len(steps) == 1 else None


def _whole(module: ActivationQuantizer) -> bool:
    """Whether the quantizer's codes have ncnn's limits. A lower limit of 0 is a ReLU's in front."""
    return module.qmin in (-LIMIT, 0) and module.qmax == LIMIT


def _convolution(module: QuantConv2d | QuantAffine) -> tuple[str, dict[int, Any]]:
    """Kind and parameters of a convolution or of a per-channel affine."""
    if isinstance(module, QuantAffine):
        channels = module.channels
        parameters = {0: channels, 1: 1, 5: 1, 7: channels, 8: _SCALE_A_GROUP}
        return "ConvolutionDepthWise", parameters
    (height, width), (down, right) = module.kernel_size, module.stride
    (top, left), (across, along) = module.padding, module.dilation
    parameters = {
        0: module.out_channels,
        1: width,
        11: height,
        2: along,
        12: across,
        3: right,
        13: down,
    }
    parameters |= {4: left, 15: left, 14: top, 16: top, 5: 1}
    if module.groups == 1:
        return "Convolution", {**parameters, 8: _SCALE_A_CHANNEL}
    return "ConvolutionDepthWise", {**parameters, 7: module.groups, 8: _SCALE_A_GROUP}


def _clamp(out: _Writer, name: str, m: ops.Clamp, inputs: list[str], blob: str) -> None:
    if m.low == 0 and m.high is None:
        out.add("ReLU", name, inputs, blob)
        return
    limits = {"p0": m.low, "p1": m.high}
    given = {key: float(value) for key, value in limits.items() if value is not None}
    out.add("Clip", name, inputs, blob, **given)


def _linear(out: _Writer, name: str, m: ops.Linear, inputs: list[str], blob: str) -> None:
    out.add("InnerProduct", name, inputs, blob, p0=m.out_features, p1=1, p2=m.weight.numel())
    out.made.network.floats(array(m.weight), tagged=True)
    out.made.network.floats(array(m.bias))


def _affine(out: _Writer, name: str, m: ops.Affine, inputs: list[str], blob: str) -> None:
    out.add("Scale", name, inputs, blob, p0=m.channels, p1=1)
    out.made.network.floats(array(m.weight))
    out.made.network.floats(array(m.bias))


def _prelu(out: _Writer, name: str, m: ops.PReLU, inputs: list[str], blob: str) -> None:
    out.add("PReLU", name, inputs, blob, p0=m.slope.numel())
    out.made.network.floats(array(m.slope))


def _binary(op: int) -> Callable[..., None]:
    def form(out: _Writer, name: str, m: nn.Module, inputs: list[str], blob: str) -> None:
        first, *rest = inputs
        out.add("BinaryOp", name, (first, *(rest or [first])), blob, p0=op)

    return form


def _pool(
    out: _Writer, name: str, m: ops.MaxPool2d | ops.AvgPool2d, inputs: list[str], blob: str
) -> None:
    attrs = m.attrs()
    (height, width), (down, right) = attrs["kernel_size"], attrs["stride"]
    top, left = attrs["padding"]
    mean = isinstance(m, ops.AvgPool2d)
    parameters = {0: int(mean), 1: width, 11: height, 2: right, 12: down, 3: left, 14: left}
    parameters |= {13: top, 15: top, 5: 1, 6: int(attrs.get("count_include_pad", False))}
    out.made.network.add("Pooling", name, inputs, blob, dict(parameters))


def _global_pool(
    out: _Writer, name: str, m: ops.GlobalAvgPool, inputs: list[str], blob: str
) -> None:
    out.add("Pooling", name, inputs, blob, p0=1, p7=1, p8=1, p18=1)


def _pad(out: _Writer, name: str, m: ops.ZeroPad, inputs: list[str], blob: str) -> None:
    around = {"p0": m.top, "p1": m.bottom, "p2": m.left, "p3": m.right}
    out.add("Padding", name, inputs, blob, **around, p4=0, p5=0.0, p7=0, p8=m.channels)


def _flatten(out: _Writer, name: str, m: ops.Flatten, inputs: list[str], blob: str) -> None:
    out.add("Flatten", name, inputs, blob)


def _reshape(out: _Writer, name: str, m: ops.Reshape, inputs: list[str], blob: str) -> None:
    sizes = out.shape[:0:-1]  # width first, without the batch
    out.made.network.add("Reshape", name, inputs, blob, dict(enumerate(sizes)))


def _transpose(out: _Writer, name: str, m: ops.Transpose, inputs: list[str], blob: str) -> None:
    first, second, third = (axis - 1 for axis in m.order[1:])
    out.add("Permute", name, inputs, blob, p0=_PERMUTED[first, second, third])


def _slice(out: _Writer, name: str, m: ops.Slice, inputs: list[str], blob: str) -> None:
    out.add("Crop", name, inputs, blob, p9=(m.start,), p10=(m.stop,), p11=(m.axis - 1,))


def _concat(out: _Writer, name: str, m: ops.Concat, inputs: list[str], blob: str) -> None:
    out.add("Concat", name, inputs, blob, p0=m.axis % len(out.shape) - 1)


def _l2_normalize(
    out: _Writer, name: str, m: ops.L2Normalize, inputs: list[str], blob: str
) -> None:
    length, floor = f"{name}.length", f"{name}.floor"
    out.add("Reduction", length, inputs, length, p0=_L2, p1=1, p4=1)
    out.add("BinaryOp", floor, (length,), floor, p0=_MAXIMUM, p1=1, p2=float(m.eps))
    out.add("BinaryOp", name, (*inputs, floor), blob, p0=_DIVIDE)


def _sigmoid(out: _Writer, name: str, m: ops.Sigmoid, inputs: list[str], blob: str) -> None:
    out.add("Sigmoid", name, inputs, blob)


_FORMS: dict[type[nn.Module], Callable[..., None]] = {
    ops.Clamp: _clamp,
    ops.Linear: _linear,
    ops.Affine: _affine,
    ops.PReLU: _prelu,
    ops.Add: _binary(_ADD),
    ops.Multiply: _binary(_MULTIPLY),
    ops.Sigmoid: _sigmoid,
    ops.MaxPool2d: _pool,
    ops.AvgPool2d: _pool,
    ops.GlobalAvgPool: _global_pool,
    ops.ZeroPad: _pad,
    ops.Flatten: _flatten,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Slice: _slice,
    ops.Concat: _concat,
    ops.L2Normalize: _l2_normalize,
}
