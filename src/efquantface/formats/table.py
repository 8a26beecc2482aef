"""The formats that ``efq export`` writes. Needs nothing but the standard library until one is used.

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
    """What the user may choose of a file.

    Attributes:
        packed: weights of few bits in few bits, where the format can.
        runtime: what runs a site's model, ``litert`` or ``onnxruntime``; ``auto`` the first that can.
    """

    packed: bool = True
    runtime: str = "auto"


class Room(Protocol):
    """What each format's module offers.

    ``refused`` says by name what the format cannot carry of a model, before anything is written; None
    where it carries all. ``write`` writes the files (the first is the one that is opened) and returns
    lines to print. ``check`` opens the files as a stranger does, compares them with the model, and
    returns lines to print. ``open`` gives the runner of a written file: normalized float32 crops
    (N,3,H,W) in, embeddings (N,D) out.

    Raises:
        ExportError: of ``write``, where a number does not fit into the format.
        MissingPackageError, RuntimeMissingError: the format's runtime is not installed.
        ParityError: of ``check``, where the files do not compute what the model computes.
    """

    def refused(self, model: FaceModel) -> str | None: ...
    def write(self, model: FaceModel, files: Sequence[Path], choices: Choices) -> list[str]: ...
    def check(self, model: FaceModel, files: Sequence[Path]) -> list[str]: ...
    def open(self, file: Path, threads: int | None = None) -> Run: ...


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: what ``--format`` calls it, and its module.
        help: what it is, for ``--help``.
        suffix: ending of the file that is opened; empty for a folder.
        beside: endings of the files that belong to it.
        floats: whether float networks (``--float``) can be written.
        between: what stands between a student's name and the ending where ``-o`` is not given, so that
            its files of several formats lie side by side.
        mark: the file by which a folder is known as one of this format.
        named_by: ending of a file beside it that ``-o`` may name in its place.
        sums16: its kernels may add in 16 bits, so that students of full range are made portable first.
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
        """The name where the user gives none, from a model's."""
        return f"{stem}{self.suffix}" if self.suffix else f"{stem}-{self.name}"

    def files(self, output: Path) -> tuple[Path, ...]:
        """The files that ``-o`` stands for, the one that is opened first.

        Raises:
            ExportError: the name has another ending than the format's, or a folder has none.
        """
        if self.named_by and output.suffix == self.named_by:
            (own,) = self.beside
            if not output.name.endswith(own):
                return output.with_suffix(self.suffix), output
            output = output.with_name(output.name.removesuffix(own) + self.suffix)
        if not self.suffix:
            if not output.name or output.name == ".." or output.suffix in _ENDINGS:
                raise ExportError(f"-o {output}: this is a folder; give it a name of its own")
            return (output,)
        if output.suffix != self.suffix:
            raise ExportError(f"-o {output}: this file's name ends in {self.suffix}")
        return output, *(output.with_suffix(ending) for ending in self.beside)


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format("onnx", "a file for ONNX Runtime and whatever else reads ONNX", ".onnx"),
        Format("openvino", "IR placed for OpenVINO's integers", ".xml", (".bin", ".contract.json")),
        Format("tflite", "a file for LiteRT, of phones and browsers", ".tflite", sums16=False),
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
_ENDINGS = {entry.suffix for entry in FORMATS.values()} - {""}  # no folder is called so


def known(name: str) -> Format:
    """The format of a name.

    Raises:
        ExportError: there is none.
    """
    if name not in FORMATS:
        raise ExportError(f"format {name!r} is not known; choose from {', '.join(FORMATS)}")
    return FORMATS[name]
