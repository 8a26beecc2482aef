"""ONNX: for ONNX Runtime and other programs that read ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from efquantface.export.onnx_writer import write_onnx
from efquantface.export.parity import check_layers, has_signed_codes
from efquantface.formats.table import Choices
from efquantface.graph.model import FaceModel
from efquantface.runtime.sessions import Run, onnxruntime_session, run_onnxruntime


def refused(model: FaceModel) -> str | None:
    """None: ONNX can carry every operator."""
    return None


def write(model: FaceModel, files: Sequence[Path], choices: Choices) -> list[str]:
    """Write the file; returns lines to print.

    Raises:
        ExportError: a bias does not fit into int32.
    """
    (target,) = files
    write_onnx(model, target, packed=choices.packed)
    opset = onnx.load(str(target)).opset_import[0].version
    return [f"wrote {target} ({target.stat().st_size / 1e6:.2f} MB, ONNX opset {opset})"]


def check(model: FaceModel, files: Sequence[Path]) -> list[str]:
    """Compare the file with its network layer by layer; returns lines on what runs in integers.

    Raises:
        ParityError: the file does not compute what the network computes.
    """
    parity = check_layers(model, files[0])
    found, compared = parity.executed, ""
    if model.quantized:
        compared = f"; {len(parity.layers)} layers equal to the student's on random pixels"
    lines = [
        f"in ONNX Runtime: {found.describe()} (input and embedding are float){compared}",
        f"operators: {', '.join(f'{op} {count}' for op, count in found.counts.items())}",
    ]
    if not model.quantized:
        return lines
    lines.append(parity.portability)
    if has_signed_codes(model):
        lines.append(
            "signed codes: ONNX Runtime on x86 runs them in float unless a client sets the session "
            "option session.qdqisint8allowed=1"
        )
    return lines


def open(file: Path, threads: int | None = None) -> Run:
    """The file in ONNX Runtime.

    Raises:
        ModelFileError: ONNX Runtime refuses the file.
    """
    return run_onnxruntime(onnxruntime_session(file, threads))
