"""LiteRT (``.tflite``): for phones, browsers and other programs that run TensorFlow Lite's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from efquantface.extras import wanted_for
from efquantface.files import write_bytes
from efquantface.formats.table import Choices
from efquantface.graph.model import FaceModel
from efquantface.runtime.litert import run_litert
from efquantface.runtime.litert_file import parse
from efquantface.runtime.sessions import Run


def refused(model: FaceModel) -> str | None:
    """Which operators have no LiteRT form, in words; None where all have one."""
    with wanted_for("--format tflite"):
        from efquantface.formats.litert.model import not_carried
    return not_carried(model)


def write(model: FaceModel, files: Sequence[Path], choices: Choices) -> list[str]:
    """Write the file; returns lines to print."""
    with wanted_for("--format tflite"):
        from efquantface.formats.litert.model import to_litert
    (target,) = files
    data = to_litert(model)
    write_bytes(target, data)
    count = len(parse(data, str(target)).operations)
    c = model.contract
    return [
        f"wrote {target} ({target.stat().st_size / 1e6:.2f} MB, {count} operators of LiteRT)",
        f"takes float32 (N,{c.height},{c.width},3), channels last, {c.color}, {c.normalization}; its "
        "batch of 1 can be resized",
    ]


def check(model: FaceModel, files: Sequence[Path]) -> list[str]:
    """Compare the file with its network layer by layer in both kinds of kernels; returns lines to print.

    Raises:
        ParityError: the file does not compute what the network computes.
        RuntimeMissingError: LiteRT is not installed.
    """
    from efquantface.formats.litert.checking import check_litert

    return [kernels.line() for kernels in check_litert(model, files[0])]


def open(file: Path, threads: int | None = None) -> Run:
    """The file in LiteRT.

    Raises:
        RuntimeMissingError: LiteRT is not installed.
        ModelFileError: the file is damaged, or another program wrote it, or LiteRT refuses it.
    """
    return run_litert(file, threads)
