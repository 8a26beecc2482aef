"""Reads our ``.tflite`` files without LiteRT, and checks every offset.

LiteRT trusts a file, so a damaged one can crash the process. Our own files hold few kinds of tables; a
file with others is refused. A digest of the whole file finds damage that leaves it readable.

Source: the flatbuffers format, and LiteRT's ``schema.fbs``.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeVar

from efquantface.contract import METADATA_KEY, FaceContract
from efquantface.errors import ContractError, ModelFileError

_T = TypeVar("_T")
IDENTIFIER = b"TFL3"
DIGEST_KEY = "efquantface.sha256"
LAYOUT_KEY = "efquantface.layout"
LAYOUT = "NHWC"
DIGEST_BYTES = 32
ITEM_SIZES = {0: 4, 2: 4, 9: 1}  # of float32, int32 and int8, by the schema's numbers
FLOAT, INT8 = 0, 9
_MOST = 1 << 31  # bytes of a tensor
_DEEPEST = 8  # axes
# slots of each table that our writer fills
_MODEL, _GRAPH, _TENSOR = {0, 1, 2, 3, 4, 6}, {0, 1, 2, 3}, {0, 1, 2, 3, 4, 8}
_CODES, _OPERATION, _CODE, _ENTRY = {2, 3, 6}, {0, 1, 2, 3, 4}, {0, 2, 3}, {0, 1}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor.

    Attributes:
        name: may be empty.
        shape: for a batch of one.
        type: number in the schema.
        scales, zero_points: one each, or one per channel; empty where the tensor holds no codes.
        axis: of the channels.
        data: (start, stop) of a constant's bytes in the file; None for a computed tensor.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0
    data: tuple[int, int] | None = None


@dataclass(frozen=True)
class StoredOperation:
    """One operator: its number in the schema, and indices of its tensors."""

    code: int
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class StoredModel:
    """A file's graph.

    Attributes:
        tensors, operations: in the file's order.
        ends: indices of the input's and the output's tensor.
        metadata: (start, stop) of each entry's bytes, by name.
        outputs_field: the byte at which the offset of the list of outputs is stored.
    """

    tensors: tuple[StoredTensor, ...]
    operations: tuple[StoredOperation, ...]
    ends: tuple[int, int]
    metadata: dict[str, tuple[int, int]]
    outputs_field: int

    def names(self) -> dict[str, int]:
        """Indices of named tensors, by name."""
        return {tensor.name: index for index, tensor in enumerate(self.tensors) if tensor.name}


def parse(data: bytes, where: str) -> StoredModel:
    """The graph of a file that ``efq export`` wrote.

    Args:
        data: the file.
        where: its name, for errors.

    Raises:
        ModelFileError: it is damaged, or another program wrote it.
    """
    try:
        return _Reader(data).model()
    except (_Refused, struct.error, UnicodeDecodeError) as error:
        raise ModelFileError(f"{where}: is damaged, or no file of efq export ({error})") from None


def read_checked(path: Path) -> tuple[bytes, StoredModel]:
    """A file's bytes and graph, after its digest is checked.

    Raises:
        ModelFileError: it cannot be read, is damaged, or another program wrote it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from None
    model = parse(data, str(path))
    place = model.metadata.get(DIGEST_KEY)
    if place is None or place[1] - place[0] != DIGEST_BYTES:
        raise ModelFileError(
            f"{path}: was not written by efq export; convert it to ONNX: "
            "python -m tf2onnx.convert --tflite FILE --output FILE.onnx"
        )
    if data[slice(*place)] != _digest(data, place):
        raise ModelFileError(f"{path}: is damaged (its digest is another one); export it again")
    return data, model


def sealed(data: bytes, where: str) -> bytes:
    """The file with its digest, in the 32 bytes that its metadata holds for it."""
    place = parse(data, where).metadata[DIGEST_KEY]
    return data[: place[0]] + _digest(data, place) + data[place[1] :]


def _digest(data: bytes, place: tuple[int, int]) -> bytes:
    """SHA-256 of the file, with zeros in place of the digest."""
    found = hashlib.sha256(data[: place[0]])
    found.update(bytes(DIGEST_BYTES))
    found.update(data[place[1] :])
    return found.digest()


def litert_contract(path: Path) -> FaceContract:
    """The contract in a file's metadata.

    Raises:
        ModelFileError: the file is damaged, or another program wrote it.
        ContractError: the contract is missing, cannot be read, or does not fit the file.
    """
    data, model = read_checked(path)
    texts = {}
    for key in (METADATA_KEY, LAYOUT_KEY):
        if key not in model.metadata:
            raise ContractError(f"{path}: holds no {key}")
        try:
            texts[key] = data[slice(*model.metadata[key])].decode()
        except UnicodeDecodeError:
            raise ContractError(f"{path}: {key} is no text") from None
    if texts[LAYOUT_KEY] != LAYOUT:
        raise ContractError(f"{path}: its layout is {texts[LAYOUT_KEY][:20]!r}, not {LAYOUT}")
    contract = FaceContract.from_json(texts[METADATA_KEY], str(path))
    source, made = (model.tensors[end] for end in model.ends)
    wanted = (1, contract.height, contract.width, 3), (1, contract.embedding_size)
    if (source.shape, made.shape) != wanted or source.type or made.type:
        raise ContractError(
            f"{path}: takes {source.shape} and gives {made.shape}; its contract says {wanted[0]} and "
            f"{wanted[1]}, in float32"
        )
    return contract


def with_outputs(data: bytes, model: StoredModel, tensors: tuple[int, ...]) -> bytes:
    """The same file with the given tensors as outputs; their list is appended at the end."""
    start = len(data) + -len(data) % 4
    made = bytearray(data.ljust(start, b"\0"))
    made += struct.pack(f"<I{len(tensors)}i", len(tensors), *tensors)
    struct.pack_into("<I", made, model.outputs_field, start - model.outputs_field)
    return bytes(made)


class _Refused(Exception):
    """What is wrong with a file."""


@dataclass(frozen=True)
class _Table:
    """A table: its first byte, its size, and the offsets of its fields by slot."""

    at: int
    size: int
    fields: dict[int, int]

    def place(self, slot: int, size: int) -> int | None:
        """The byte at which a field of ``size`` bytes begins; None where it is left out."""
        offset = self.fields.get(slot)
        if offset is None:
            return None
        if offset + size > self.size:
            raise _Refused("a field lies outside of its table")
        return self.at + offset


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def model(self) -> StoredModel:
        if len(self.data) < 16 or self.data[4:8] != IDENTIFIER:
            raise _Refused("it does not begin like a .tflite")
        root = self.table(self.number("<I", 0), _MODEL)
        codes = [self.code(at) for at in self.tables(root, 1)]
        graphs = list(self.tables(root, 2))
        buffers = [self.buffer(at) for at in self.tables(root, 4)]
        self.bytes_of(root, 3)
        if len(graphs) != 1:
            raise _Refused(f"it holds {len(graphs)} graphs")
        graph = self.table(graphs[0], _GRAPH)
        tensors = tuple(self.tensor(at, buffers) for at in self.tables(graph, 0))
        ends = [self.numbers(graph, slot, "i") for slot in (1, 2)]
        if [len(end) for end in ends] != [1, 1]:
            raise _Refused("it has not one input and one output")
        operations = tuple(self.operation(at, codes) for at in self.tables(graph, 3))
        used = [i for o in operations for i in (*o.inputs, o.output)] + [e[0] for e in ends]
        if not all(0 <= index < len(tensors) for index in used):
            raise _Refused("an operator names a tensor that is not there")
        metadata = dict(self.entry(at, buffers) for at in self.tables(root, 6))
        field = graph.place(2, 4)
        assert field is not None
        return StoredModel(tensors, operations, (ends[0][0], ends[1][0]), metadata, field)

    def code(self, at: int) -> int:
        table = self.table(at, _CODE)
        return max(self.scalar(table, 0, "<b"), self.scalar(table, 3, "<i"))

    def buffer(self, at: int) -> tuple[int, int] | None:
        return self.bytes_of(self.table(at, {0}), 0)

    def entry(self, at: int, buffers: list[tuple[int, int] | None]) -> tuple[str, tuple[int, int]]:
        table = self.table(at, _ENTRY)
        place = self.chosen(buffers, self.scalar(table, 1, "<I"))
        return self.text(table, 0), place or (0, 0)

    def tensor(self, at: int, buffers: list[tuple[int, int] | None]) -> StoredTensor:
        table = self.table(at, _TENSOR)
        shape, kind = self.numbers(table, 0, "i"), self.scalar(table, 1, "<b")
        if len(shape) > _DEEPEST or not all(size > 0 for size in shape):
            raise _Refused(f"a tensor has shape {shape[:_DEEPEST]}")
        if kind not in ITEM_SIZES:
            raise _Refused(f"a tensor is of type {kind}")
        size = prod(shape) * ITEM_SIZES[kind]
        data = self.chosen(buffers, self.scalar(table, 2, "<I"))
        if size > _MOST or (data is not None and data[1] - data[0] != size):
            raise _Refused("a constant has not the size of its shape")
        scales, zero_points, axis = self.quantization(table, shape)
        return StoredTensor(self.text(table, 3), shape, kind, scales, zero_points, axis, data)

    def quantization(
        self, tensor: _Table, shape: tuple[int, ...]
    ) -> tuple[tuple[float, ...], tuple[int, ...], int]:
        """Scales, zero points and axis."""
        at = self.follow(tensor, 4)
        if at is None:
            return (), (), 0
        table = self.table(at, _CODES)
        scales = self.numbers(table, 2, "f")
        zero_points, axis = self.numbers(table, 3, "q"), self.scalar(table, 6, "<i")
        many = shape[axis] if 0 <= axis < len(shape) else -1
        if len(scales) not in (1, many) or len(scales) != len(zero_points):
            raise _Refused("a tensor has not as many scales as channels")
        return scales, zero_points, axis

    def operation(self, at: int, codes: list[int]) -> StoredOperation:
        table = self.table(at, _OPERATION)
        inputs, outputs = self.numbers(table, 1, "i"), self.numbers(table, 2, "i")
        if len(outputs) != 1:
            raise _Refused("an operator has not one output")
        options = self.follow(table, 4)
        if options is not None:
            self.table(options, None)
        self.scalar(table, 3, "<B")
        return StoredOperation(self.chosen(codes, self.scalar(table, 0, "<I")), inputs, outputs[0])

    # --- the parts of flatbuffers

    def number(self, form: str, at: int) -> int:
        size = struct.calcsize(form)
        if not 0 <= at <= len(self.data) - size:
            raise _Refused("an offset points out of the file")
        found: int = struct.unpack_from(form, self.data, at)[0]
        return found

    def table(self, at: int, slots: set[int] | None) -> _Table:
        """The table at byte ``at``; ``slots`` are those that it may have, None for any."""
        head = at - self.number("<i", at)
        length, size = self.number("<H", head), self.number("<H", head + 2)
        if length < 4 or length % 2 or size < 4 or at + size > len(self.data):
            raise _Refused("a table is broken")
        found = {}
        for slot in range((length - 4) // 2):
            offset = self.number("<H", head + 4 + 2 * slot)
            if offset:
                found[slot] = offset
        if slots is not None and not set(found) <= slots:
            raise _Refused("it holds what efq export does not write")
        return _Table(at, size, found)

    def scalar(self, table: _Table, slot: int, form: str) -> int:
        """A number; 0 where it is left out."""
        at = table.place(slot, struct.calcsize(form))
        return 0 if at is None else self.number(form, at)

    def follow(self, table: _Table, slot: int) -> int | None:
        at = table.place(slot, 4)
        return None if at is None else at + self.number("<I", at)

    def vector(self, table: _Table, slot: int, size: int) -> tuple[int, int]:
        """The byte at which a vector's entries begin, and their number."""
        at = self.follow(table, slot)
        if at is None:
            return 0, 0
        count = self.number("<I", at)
        if at + 4 + count * size > len(self.data):
            raise _Refused("a vector reaches out of the file")
        return at + 4, count

    def numbers(self, table: _Table, slot: int, form: str) -> tuple[int, ...]:
        start, count = self.vector(table, slot, struct.calcsize("<" + form))
        return struct.unpack_from(f"<{count}{form}", self.data, start)

    def tables(self, table: _Table, slot: int) -> Iterator[int]:
        start, count = self.vector(table, slot, 4)
        for at in range(start, start + 4 * count, 4):
            yield at + self.number("<I", at)

    def bytes_of(self, table: _Table, slot: int) -> tuple[int, int] | None:
        if slot not in table.fields:
            return None
        start, count = self.vector(table, slot, 1)
        return start, start + count

    def text(self, table: _Table, slot: int) -> str:
        place = self.bytes_of(table, slot)
        return "" if place is None else self.data[slice(*place)].decode()

    @staticmethod
    def chosen(values: list[_T], index: int) -> _T:
        if not 0 <= index < len(values):
            raise _Refused("an index points at nothing")
        return values[index]
