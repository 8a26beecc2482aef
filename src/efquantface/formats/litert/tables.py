"""Flatbuffer tables from plain data: a file's tensors, operators, buffers and metadata.

Equal vectors, texts and buffers are stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt

from efquantface.formats.litert.schema import IDENTIFIER, OPERATORS, TYPES, VERSION

_ALIGNED = 16  # bytes; runtimes read constants in place


@dataclass
class Tensor:
    """One tensor of the file.

    Attributes:
        shape: in memory, for a batch of 1.
        dtype: float32, int8 or int32.
        name: empty where no reader looks for it.
        data: the values of a constant; None otherwise.
        scales: of codes, one, or one per channel.
        zero_point: of codes.
        axis: the axis that the scales lie along.
    """

    shape: tuple[int, ...]
    dtype: Any
    name: str = ""
    data: npt.NDArray[Any] | None = None
    scales: npt.NDArray[np.float32] | None = None
    zero_point: int = 0
    axis: int = 0


@dataclass
class Operation:
    """One operator of the file: its name in ``OPERATORS``, its tensors by index, its options."""

    name: str
    inputs: tuple[int, ...]
    output: int
    options: dict[str, float] = field(default_factory=dict)


def packed(
    tensors: Sequence[Tensor],
    operations: Sequence[Operation],
    ends: tuple[int, int],
    metadata: dict[str, bytes],
) -> bytes:
    """A file of one graph.

    Args:
        tensors, operations: in the order of execution.
        ends: indices of the tensors of input and output.
        metadata: bytes by name.
    """
    return _Packer().file(tensors, operations, ends, metadata)


class _Packer:
    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 16)
        self.shared: dict[tuple[str, bytes], int] = {}
        self.buffers = [self.table(1, [])]  # the first buffer is empty; computed tensors have it
        self.stored: dict[bytes, int] = {}

    def file(
        self,
        tensors: Sequence[Tensor],
        operations: Sequence[Operation],
        ends: tuple[int, int],
        metadata: dict[str, bytes],
    ) -> bytes:
        codes = list(dict.fromkeys(operation.name for operation in operations))
        made = self.offsets([self.tensor(t) for t in tensors])
        done = self.offsets([self.operation(o, codes) for o in operations])
        graph = [(0, "offset", made), (3, "offset", done)]
        graph += [
            (slot + 1, "offset", self.vector([end], np.int32)) for slot, end in enumerate(ends)
        ]
        subgraphs = self.offsets([self.table(5, graph)])
        kinds = self.offsets([self.code(name) for name in codes])
        entries = [
            self.table(2, [(0, "offset", self.text(name)), (1, "Uint32", self.own(data))])
            for name, data in metadata.items()
        ]
        model = [
            (0, "Uint32", VERSION),
            (1, "offset", kinds),
            (2, "offset", subgraphs),
            (3, "offset", self.text("efquantface")),
            (4, "offset", self.offsets(self.buffers)),
            (6, "offset", self.offsets(entries)),
        ]
        self.builder.Finish(self.table(8, model), file_identifier=IDENTIFIER)
        return bytes(self.builder.Output())

    def table(self, slots: int, fields: Sequence[tuple[int, str, Any]]) -> int:
        """A table of plain values and of offsets of finished tables."""
        self.builder.StartObject(slots)
        for slot, kind, value in fields:
            if kind == "offset":
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                getattr(self.builder, f"Prepend{kind}Slot")(slot, value, 0)
        return int(self.builder.EndObject())

    def offsets(self, tables: Sequence[int]) -> int:
        """A vector of tables."""
        self.builder.StartVector(4, len(tables), 4)
        for offset in reversed(tables):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def vector(self, values: Any, dtype: Any) -> int:
        """A vector of numbers."""
        array = np.asarray(values, dtype)
        key = str(array.dtype), array.tobytes()
        if key not in self.shared:
            self.shared[key] = int(self.builder.CreateNumpyVector(array))
        return self.shared[key]

    def text(self, text: str) -> int:
        """A string."""
        key = "text", text.encode()
        if key not in self.shared:
            self.shared[key] = int(self.builder.CreateString(text))
        return self.shared[key]

    def buffer(self, data: bytes) -> int:
        """The number of the buffer that holds these bytes."""
        if data not in self.stored:
            self.stored[data] = self.own(data)
        return self.stored[data]

    def own(self, data: bytes) -> int:
        """The number of a new buffer with these bytes, which is not shared."""
        self.builder.Prep(_ALIGNED, len(data))
        vector = int(self.builder.CreateByteVector(data))
        self.buffers.append(self.table(1, [(0, "offset", vector)]))
        return len(self.buffers) - 1

    def tensor(self, tensor: Tensor) -> int:
        dtype = np.dtype(tensor.dtype)
        fields: list[tuple[int, str, Any]] = [
            (0, "offset", self.vector(tensor.shape, np.int32)),
            (1, "Int8", TYPES[dtype]),
            (8, "Bool", True),
        ]
        if tensor.data is not None:
            data = np.ascontiguousarray(tensor.data, dtype).tobytes()
            fields.append((2, "Uint32", self.buffer(data)))
        if tensor.name:
            fields.append((3, "offset", self.text(tensor.name)))
        if tensor.scales is not None:
            zero_points = np.full(len(tensor.scales), tensor.zero_point)
            quantization = [
                (2, "offset", self.vector(tensor.scales, np.float32)),
                (3, "offset", self.vector(zero_points, np.int64)),
                (6, "Int32", tensor.axis),
            ]
            fields.append((4, "offset", self.table(7, quantization)))
        return self.table(9, fields)

    def operation(self, operation: Operation, codes: list[str]) -> int:
        known = OPERATORS[operation.name]
        fields: list[tuple[int, str, Any]] = [
            (0, "Uint32", codes.index(operation.name)),
            (1, "offset", self.vector(operation.inputs, np.int32)),
            (2, "offset", self.vector([operation.output], np.int32)),
        ]
        if known.options:
            given = [(*known.slot(name), value) for name, value in operation.options.items()]
            slots = 1 + max((slot for _, slot, _ in known.slots), default=0)
            options = self.table(slots, [(slot, kind, value) for slot, kind, value in given])
            fields += [(3, "Uint8", known.options), (4, "offset", options)]
        return self.table(5, fields)

    def code(self, name: str) -> int:
        known = OPERATORS[name]
        legacy = min(known.code, 127)  # runtimes of 2020 read this field
        fields = [(0, "Int8", legacy), (2, "Int32", known.version), (3, "Int32", known.code)]
        return self.table(4, fields)
