"""A ``.tflite`` taken apart and put together by LiteRT's own schema, with its digest made anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from efquantface.contract import METADATA_KEY
from efquantface.runtime.litert_file import sealed

Change = Callable[[np.ndarray], Any]


class LiteRtFile:
    """A file in memory; quantizers' tensors go by the quantizers' names."""

    def __init__(self, data: bytes) -> None:
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        (self.graph,) = self.model.subgraphs

    def kind(self, operator: Any) -> str:
        """An operator's name in the schema."""
        code = self.model.operatorCodes[operator.opcodeIndex].builtinCode
        return next(k for k, v in vars(schema.BuiltinOperator).items() if v == code)

    def kinds(self) -> list[str]:
        """All operators in the order of execution."""
        return [self.kind(operator) for operator in self.graph.operators]

    def tensor(self, name: str) -> Any:
        """The tensor of a name."""
        return next(t for t in self.graph.tensors if t.name == name.encode())

    def maker(self, name: str) -> Any:
        """The operator that makes a quantizer's codes; not the one that limits them below."""
        index = self.graph.tensors.index(self.tensor(name))
        made = next(o for o in self.graph.operators if index in o.outputs)
        source = self.graph.tensors[made.inputs[0]]
        if self.kind(made) == "QUANTIZE" and source.type == schema.TensorType.INT8:
            return next(o for o in self.graph.operators if made.inputs[0] in o.outputs)
        return made

    def first(self, kind: str) -> Any:
        """The first operator of a kind."""
        return next(o for o in self.graph.operators if self.kind(o) == kind)

    def operand(self, operator: Any, index: int) -> Any:
        """A tensor that an operator reads."""
        return self.graph.tensors[operator.inputs[index]]

    def value(self, tensor: Any) -> np.ndarray:
        """A constant's value."""
        types = {schema.TensorType.INT8: np.int8, schema.TensorType.INT32: np.int32}
        data = bytes(self.model.buffers[tensor.buffer].data)
        return np.frombuffer(data, types.get(tensor.type, np.float32)).reshape(tensor.shape).copy()

    def change(self, tensor: Any, change: Change) -> None:
        """Give a constant a buffer of its own with what ``change`` makes of it."""
        old = self.value(tensor)
        new = np.asarray(change(old)).astype(old.dtype)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(new).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor.buffer = len(self.model.buffers) - 1

    def metadata(self, name: str) -> Any:
        """The buffer of an entry of the metadata."""
        entry = next(m for m in self.model.metadata if m.name == name.encode())
        return self.model.buffers[entry.buffer]

    def set_metadata(self, name: str, content: bytes) -> None:
        """Put other bytes there."""
        self.metadata(name).data = np.frombuffer(content, np.uint8)

    def contract(self, **changes: Any) -> None:
        """Change fields of the stored contract."""
        stored = json.loads(bytes(self.metadata(METADATA_KEY).data))
        self.set_metadata(METADATA_KEY, json.dumps({**stored, **changes}).encode())

    def bytes(self) -> bytes:
        """The file, its digest right again."""
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return sealed(bytes(builder.Output()), "planted")
