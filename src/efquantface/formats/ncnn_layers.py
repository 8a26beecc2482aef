"""The text and the weights of an ncnn network under construction.

``.param`` holds one line per layer (type, name, blobs in and out, numbered parameters). ``.bin`` holds
the weights in the order of the layers. A blob has one reader; a Split stands behind a blob with several.
Names that are made here have a dot, which no operator's name has.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MAGIC = "7767517"
_INT8, _FLOAT = 0x000D4B38, 0  # tags in front of weights
Parameter = int | float | Sequence[float]


@dataclass(frozen=True)
class Layer:
    """One layer, a line of ``.param``.

    Attributes:
        parameters: by their number in ncnn's documentation.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: dict[int, Parameter]

    def line(self) -> str:
        """The line of ``.param``."""
        counts = f"{len(self.inputs)} {len(self.outputs)}"
        parameters = (_parameter(key, value) for key, value in self.parameters.items())
        return " ".join(
            (f"{self.kind:<22} {self.name}", counts, *self.inputs, *self.outputs, *parameters)
        )


def _parameter(key: int, value: Parameter) -> str:
    if isinstance(value, int):
        return f"{key}={value}"
    if isinstance(value, float):
        return f"{key}={value:e}"
    numbers = ",".join(str(v) if isinstance(v, int) else f"{v:e}" for v in value)
    return f"{-23300 - key}={len(value)},{numbers}"


@dataclass
class Network:
    """Layers in execution order, and their weights."""

    layers: list[Layer] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)

    def add(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str],
        output: str,
        parameters: dict[int, Parameter] | None = None,
    ) -> None:
        """Append a layer of one output."""
        self.layers.append(Layer(kind, name, tuple(inputs), (output,), parameters or {}))

    def codes(self, values: npt.NDArray[np.int8]) -> None:
        """Append int8 weights, padded to a multiple of four bytes."""
        self.weights += struct.pack("<I", _INT8) + values.astype(np.int8).tobytes()
        self.weights += bytes(-values.size % 4)

    def floats(self, values: npt.ArrayLike, *, tagged: bool = False) -> None:
        """Append float32 values. Weights have a tag in front (``tagged``); biases and scales do not."""
        if tagged:
            self.weights += struct.pack("<I", _FLOAT)
        self.weights += np.asarray(values, "<f4").tobytes()

    def text(self) -> str:
        """The whole ``.param``."""
        layers = _split(self.layers)
        blobs = sum(len(layer.outputs) for layer in layers)
        lines = (MAGIC, f"{len(layers)} {blobs}", *(layer.line() for layer in layers))
        return "\n".join(lines) + "\n"


def _split(layers: Sequence[Layer]) -> list[Layer]:
    """Layers with a Split behind each blob that has several readers."""
    readers = Counter(blob for layer in layers for blob in layer.inputs)
    given: Counter[str] = Counter()
    made = []
    for layer in layers:
        inputs = []
        for blob in layer.inputs:
            inputs.append(f"{blob}.{given[blob]}" if readers[blob] > 1 else blob)
            given[blob] += 1
        made.append(Layer(layer.kind, layer.name, tuple(inputs), layer.outputs, layer.parameters))
        for blob in layer.outputs:
            if readers[blob] > 1:
                copies = tuple(f"{blob}.{i}" for i in range(readers[blob]))
                made.append(Layer("Split", f"{blob}.split", (blob,), copies, {}))
    return made
