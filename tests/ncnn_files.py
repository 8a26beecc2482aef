"""Reads ncnn's files by its documentation, independent of the writer, and changes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Line:
    """A layer of ``.param``: its kind, name, blobs and numbered parameters, as they stand there."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    parameters: dict[int, str]

    def integer(self, key: int, default: int = 0) -> int:
        value = self.parameters.get(key, str(default))
        return int(value) if value.lstrip("-").isdigit() else default

    def text(self) -> str:
        counts = [str(len(self.inputs)), str(len(self.outputs))]
        parameters = [f"{key}={value}" for key, value in self.parameters.items()]
        return " ".join([self.kind, self.name, *counts, *self.inputs, *self.outputs, *parameters])


class NcnnFile:
    """Both files in memory.

    Attributes:
        lines: layers in order.
        places: by layer name and part (weight, bias, scales, bottom, top, slopes): offset, count and
            dtype in ``.bin``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        magic, counts, *lines = path.read_text().splitlines()
        assert magic == "7767517"
        self.counts = counts
        self.lines = [self._line(line.split()) for line in lines]
        self.data = bytearray(path.with_suffix(".bin").read_bytes())
        self.places: dict[tuple[str, str], tuple[int, int, str]] = {}
        self._end = 0
        for line in self.lines:
            self._weights(line)
        assert self._end == len(self.data)

    @staticmethod
    def _line(words: list[str]) -> Line:
        reads, gives = int(words[2]), int(words[3])
        blobs, rest = words[4 : 4 + reads + gives], words[4 + reads + gives :]
        parameters = {int(key): value for key, value in (word.split("=") for word in rest)}
        return Line(words[0], words[1], blobs[:reads], blobs[reads:], parameters)

    def _weights(self, line: Line) -> None:
        """The parts that a layer reads from ``.bin``, in their order."""
        out, term = line.integer(0), line.integer(8)
        if line.kind in ("Convolution", "ConvolutionDepthWise", "InnerProduct"):
            count = line.integer(2 if line.kind == "InnerProduct" else 6)
            tag = int.from_bytes(self.data[self._end : self._end + 4], "little")
            self._end += 4
            assert (tag == 0x000D4B38) == bool(term)
            self._part(line, "weight", count, "i1" if term else "<f4")
            self._part(line, "bias", out, "<f4")
            if term:
                self._part(line, "scales", line.integer(7) if term % 100 == 1 else out, "<f4")
                self._part(line, "bottom", 1, "<f4")
            if term > 100:
                self._part(line, "top", 1, "<f4")
        elif line.kind == "Scale":
            self._part(line, "weight", out, "<f4")
            self._part(line, "bias", out, "<f4")
        elif line.kind == "PReLU":
            self._part(line, "slopes", out, "<f4")

    def _part(self, line: Line, part: str, count: int, dtype: str) -> None:
        self.places[line.name, part] = (self._end, count, dtype)
        self._end += -(-count * np.dtype(dtype).itemsize // 4) * 4

    def line(self, name: str) -> Line:
        return next(line for line in self.lines if line.name == name)

    def value(self, name: str, part: str) -> np.ndarray:
        """A part of a layer's weights; what is written to it is in the file when it is saved."""
        offset, count, dtype = self.places[name, part]
        return np.frombuffer(self.data, dtype, count, offset)

    def save(self) -> None:
        self.path.with_suffix(".bin").write_bytes(bytes(self.data))
        lines = ["7767517", self.counts, *(line.text() for line in self.lines)]
        self.path.write_text("\n".join(lines) + "\n")
