"""The file under construction: tensors, operators, and values in the layouts that operators read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor as TorchTensor
from torch import fx, nn

from efquantface.contract import FaceContract
from efquantface.formats.litert.schema import OPERATORS, RELU
from efquantface.formats.litert.tables import Operation, Tensor
from efquantface.formats.litert.values import Codes, Placed, Value, placed, regrouped
from efquantface.graph.graph import module_of, name_of
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.narrow import quantizer_of

Array = npt.NDArray[Any]


@dataclass
class Writer:
    """Collects tensors and operators. The LiteRT forms of operators (:mod:`emitters`) write with it.

    Attributes:
        graph: the graph that is written.
        contract: of the file.
        shapes: of each node's value for one crop, by the node's name.
        quantizers: the quantizer that is the only reader of a node's value, by the node's name.
        scales: moved scales of quantizers (:mod:`sums`), by name; others have the student's.
        orders: the order of axes in memory of each quantizer's codes, by its name.
    """

    graph: fx.GraphModule
    contract: FaceContract
    shapes: dict[str, tuple[int, ...]]
    tensors: list[Tensor] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    quantizers: dict[str, tuple[str, ActivationQuantizer]] = field(default_factory=dict)
    scales: dict[str, np.float32] = field(default_factory=dict)
    orders: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _constants: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _made: dict[tuple[Any, ...], Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.graph.graph.nodes:
            users = list(node.users)
            reader = module_of(self.graph, users[0]) if len(users) == 1 else None
            if node.op == "call_module" and isinstance(reader, ActivationQuantizer):
                self.quantizers[name_of(node)] = (name_of(users[0]), reader)

    # --- tensors

    def add(self, tensor: Tensor) -> int:
        """Add a tensor and return its index."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(
        self,
        value: npt.ArrayLike,
        dtype: Any = np.float32,
        scales: Array | None = None,
        axis: int = 0,
    ) -> int:
        """The index of a constant's tensor. Equal constants share one."""
        array = np.asarray(value, dtype)
        array = np.ascontiguousarray(array).reshape(array.shape)
        scale = None if scales is None else np.asarray(scales, np.float32)
        steps = b"" if scale is None else scale.tobytes()
        key = (array.shape, array.dtype.str, array.tobytes(), axis, steps)
        if key not in self._constants:
            tensor = Tensor(array.shape, array.dtype, data=array, scales=scale, axis=axis)
            self._constants[key] = self.add(tensor)
        return self._constants[key]

    def float_tensor(self, shape: tuple[int, ...]) -> int:
        """A new tensor of floats, the output of an operator to come."""
        return self.add(Tensor(shape, np.float32))

    def code_tensor(self, shape: tuple[int, ...], codes: Codes) -> int:
        """A new tensor of codes, the output of an operator to come."""
        scales = np.asarray([codes.scale], np.float32)
        return self.add(Tensor(shape, np.int8, scales=scales, zero_point=codes.zero_point))

    # --- operators

    def op(self, name: str, inputs: tuple[int, ...], output: int, **options: float) -> int:
        """Add an operator and return its output."""
        self.operations.append(Operation(name, inputs, output, options))
        return output

    def float_op(self, name: str, inputs: tuple[int, ...], like: Value, **options: float) -> Value:
        """An operator whose result is float, of the shape and layout of ``like``."""
        value = replace(like, codes=None)
        return value.made(self.op(name, inputs, self.float_tensor(value.stored), **options))

    def integer_op(
        self,
        op: str,
        inputs: tuple[int, ...],
        like: Value,
        quantizer: tuple[str, ActivationQuantizer],
        **options: float,
    ) -> Value:
        """An operator that gives the codes of the quantizer behind it."""
        name, module = quantizer
        can_rectify = any(option == "fused" for option, _, _ in OPERATORS[op].slots)
        where = placed(module, self.scale_of(quantizer), can_rectify)
        if where.rectified:
            options["fused"] = RELU
        made = replace(like, codes=where.first)
        made = made.made(self.op(op, inputs, self.code_tensor(made.stored, where.first), **options))
        return self._limited(made, name, where)

    def scale_of(self, quantizer: tuple[str, ActivationQuantizer]) -> np.float32:
        """The scale that a quantizer's codes have in the file."""
        name, module = quantizer
        return self.scales.get(name, np.float32(module.qparams()[0]))

    def student_scale(self, name: str) -> float:
        """The student's own scale of the codes that a node reads."""
        node = next(n for n in self.graph.graph.nodes if n.target == name)
        return quantizer_of(self.graph, node.args[0]).qparams()[0]

    def _limited(self, value: Value, name: str, where: Placed) -> Value:
        """Codes that are limited below as well, named as their quantizer."""
        if where.last is not None:
            value = self.moved(value, where.last)
        return self.named(value, name)

    def named(self, value: Value, name: str) -> Value:
        """Codes named as their quantizer; the check finds them by this name."""
        self.tensors[value.tensor].name, self.orders[name] = name, value.order
        return value

    def moved(self, value: Value, codes: Codes) -> Value:
        """The same codes shifted within int8, whose ends limit them."""
        output = self.code_tensor(value.stored, codes)
        return replace(value, codes=codes).made(self.op("QUANTIZE", (value.tensor,), output))

    def quantized(self, value: Value, name: str, module: ActivationQuantizer) -> Value:
        """Codes of a float value."""
        return self.integer_op("QUANTIZE", (value.tensor,), value, (name, module))

    def real(self, value: Value) -> Value:
        """The same value in float."""
        if value.codes is None:
            return value
        key = ("real", value.tensor)
        if key not in self._made:
            self._made[key] = self.float_op("DEQUANTIZE", (value.tensor,), value)
        return replace(self._made[key], columns=value.columns)

    # --- layouts

    def laid(self, value: Value, order: tuple[int, ...] | None = None) -> Value:
        """The value with its axes in memory in ``order``; from first to last where None."""
        order = tuple(range(len(value.shape))) if order is None else order
        if value.order == order:
            return value
        key = ("laid", value.tensor, value.shape, order)
        if key in self._made:
            return self._made[key]
        made = replace(value, order=order)
        long = [[a for a in v.order if v.shape[a] > 1] for v in (value, made)]
        if long[0] == long[1]:
            made = self.reshaped(value, made)
        else:
            turn = self.constant([value.order.index(axis) for axis in order], np.int32)
            made = made.made(self.op("TRANSPOSE", (value.tensor, turn), self._like(made)))
        self._made[key] = made
        return made

    def reshaped(self, value: Value, made: Value) -> Value:
        """The value's memory as a tensor of another shape. The batch size stays open."""
        shape = self.constant([-1, *made.stored[1:]], np.int32)
        return made.made(self.op("RESHAPE", (value.tensor, shape), self._like(made)))

    def in_shape(self, value: Value, shape: tuple[int, ...]) -> Value:
        """The value in another shape."""
        order = regrouped(value, shape)
        if order is None:
            value, order = self.laid(value), tuple(range(len(shape)))
        return self.reshaped(value, Value(-1, shape, order, value.codes))

    def as_columns(self, value: Value) -> Value:
        """A map as a vector with the same order in memory. Readers follow its ``columns``."""
        entries = np.arange(prod(value.shape)).reshape(value.shape).transpose(value.order).ravel()
        made = Value(-1, (1, entries.size), (0, 1), value.codes, entries)
        return self.reshaped(value, made)

    def moved_op(self, op: str, inputs: tuple[int, ...], made: Value, **options: float) -> Value:
        """An operator that hands on codes or floats unchanged."""
        return made.made(self.op(op, inputs, self._like(made), **options))

    def _like(self, made: Value) -> int:
        if made.codes is None:
            return self.float_tensor(made.stored)
        return self.code_tensor(made.stored, made.codes)

    def broadcast(self, array: Array, value: Value) -> int:
        """A constant that is broadcast over a value's axes. It may have fewer axes, at the front."""
        wide = np.asarray(array, np.float32)
        wide = wide.reshape((1,) * (len(value.shape) - wide.ndim) + wide.shape)
        return self.constant(wide.transpose(value.order))


def array(tensor: TorchTensor | nn.Parameter) -> Array:
    """A tensor's values as a NumPy array on the CPU."""
    return np.asarray(tensor.detach().cpu().numpy())
