"""The formats that ``efq export`` writes. Until one is used, this needs the standard library only.

A format is a module of this package with the functions of :class:`Room`, and a line in ``FORMATS``.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from efquantface.errors import ExportError

if TYPE_CHECKING:
    from efquantface.graph.model import FaceModel
    from efquantface.runtime.sessions import Run


@dataclass(frozen=True)
class Choices:
    """What the user can choose of a file.

    Attributes:
        packed: store weights of few bits in few bits, where the format can.
        runtime: what runs a site's model: ``litert``, ``onnxruntime``, or ``auto`` (the first that can).
    """

    packed: bool = True
    runtime: str = "auto"


class Room(Protocol):
    """What each format's module offers.

    ``refused`` says what the format cannot carry of a model, before anything is written; None where it
    carries all. ``write`` writes the files, the one to open first, and returns lines to print. ``check``
    opens the files as any client does, compares them with the model, and returns lines to print.
    ``open`` gives a function from normalized float32 crops (N,3,H,W) to embeddings (N,D).

    Raises:
        ExportError: ``write`` meets a number that does not fit into the format.
        MissingPackageError, RuntimeMissingError: the format's runtime is not installed.
        ParityError: ``check`` finds that the files do not compute what the model computes.
    """

    def refused(self, model: FaceModel) -> str | None: ...
    def write(self, model: FaceModel, files: Sequence[Path], choices: Choices) -> list[str]: ...
    def check(self, model: FaceModel, files: Sequence[Path]) -> list[str]: ...
    def open(self, file: Path, threads: int | None = None) -> Run: ...


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: its name for ``--format``, and of its module.
        help: what it is, for ``--help``.
        suffix: ending of the file to open; empty for a folder.
        beside: endings of the files that belong to it.
        floats: whether float networks (``--float``) can be written.
        between: put between a student's name and the ending where ``-o`` is not given, so that files of
            several formats can lie side by side.
        mark: the file that marks a folder as one of this format.
        named_by: ending of a file beside it that ``-o`` may name instead.
        sums16: its kernels may add in 16 bits, so students of full range are made portable first.
    """

    name: str
    help: str
    suffix: str
    beside: tuple[str, ...] = ()
    floats: bool = True
    between: str = ""
    mark: str = ""
    sums16: bool = True
    named_by: str = ""

    @property
    def room(self) -> Room:
        """The format's module, imported when it is used."""
        return cast(Room, importlib.import_module(f"efquantface.formats.{self.name}"))

    def called(self, stem: str) -> str:
        """The file's name where the user gives none, from the model's name."""
        return f"{stem}{self.suffix}" if self.suffix else f"{stem}-{self.name}"

    def files(self, output: Path) -> tuple[Path, ...]:
        """The files that ``-o`` stands for, the one to open first.

        Raises:
            ExportError: the name has another ending than the format's, or a folder has no name.
        """
        if self.named_by and output.suffix == self.named_by:
            (own,) = self.beside
            if not output.name.endswith(own):
                return output.with_suffix(self.suffix), output
            output = output.with_name(output.name.removesuffix(own) + self.suffix)
        if not self.suffix:
            if not output.name or output.name == ".." or output.suffix in _ENDINGS:
                raise ExportError(
                    f"-o {output}: this format writes a folder; give it a name of its own"
                )
            return (output,)
        if output.suffix != self.suffix:
            raise ExportError(f"-o {output}: name a file that ends in {self.suffix}")
        return output, *(output.with_suffix(ending) for ending in self.beside)


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format("onnx", "a file for ONNX Runtime and other programs that read ONNX", ".onnx"),
        Format(
            "openvino", "IR with quantizers placed for OpenVINO", ".xml", (".bin", ".contract.json")
        ),
        Format("tflite", "a file for LiteRT, on phones and in browsers", ".tflite", sums16=False),
        Format(
            "scales",
            "float ONNX and a JSON of scales, for other converters",
            ".onnx",
            (".scales.json",),
            floats=False,
            between=".float",
            named_by=".json",
        ),
        Format(
            "tensorrt",
            "ONNX as TensorRT's parser takes it, of symmetric students",
            ".onnx",
            floats=False,
            between=".tensorrt",
        ),
        Format(
            "ncnn",
            "ncnn's .param and .bin in int8, of symmetric students",
            ".param",
            (".bin", ".contract.json"),
            floats=False,
            between=".ncnn",
        ),
        Format("web", "a folder to serve: a page that compares faces", "", mark="efquantface.json"),
    )
}
_ENDINGS = {entry.suffix for entry in FORMATS.values()} - {""}  # a folder's name has none of these


def known(name: str) -> Format:
    """The format called ``name``.

    Raises:
        ExportError: no format has this name.
    """
    if name not in FORMATS:
        raise ExportError(f"format {name!r} is not known; choose from {', '.join(FORMATS)}")
    return FORMATS[name]
