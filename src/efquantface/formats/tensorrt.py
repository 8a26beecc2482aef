"""TensorRT: an ONNX file in the form that its parser and its explicit quantization accept.

The check runs on no GPU. It reads the file by the stated rules (:mod:`tensorrt_rules`). It compares the
student's codes at every quantizer in ONNX Runtime. What TensorRT fuses, and its speed, are not checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from efquantface.errors import ParityError
from efquantface.export.onnx_writer import OPSET, named_onnx
from efquantface.export.parity import check_layers
from efquantface.export.stated import read_file
from efquantface.files import write_bytes
from efquantface.formats.symmetric import needs_symmetric, wide_weights
from efquantface.formats.table import Choices
from efquantface.formats.tensorrt_forms import FORMS
from efquantface.formats.tensorrt_rules import broken_rules
from efquantface.graph.model import FaceModel
from efquantface.runtime.sessions import Run, onnxruntime_session, run_onnxruntime

_BATCHES = {"min": 1, "opt": 8, "max": 32}  # of the suggested engine


def refused(model: FaceModel) -> str | None:
    """Why TensorRT cannot carry a model (zero points, or an operator without a form), or None."""
    return needs_symmetric(model, "TensorRT")


def write(model: FaceModel, files: Sequence[Path], choices: Choices) -> list[str]:
    """Write the file; returns lines to print."""
    (target,) = files
    proto, _ = named_onnx(model, packed=False, emitters=FORMS)
    write_bytes(target, proto.SerializeToString())
    size = f"3x{model.contract.height}x{model.contract.width}"
    shapes = (
        f"--{key}Shapes={model.contract.input_name}:{n}x{size}" for key, n in _BATCHES.items()
    )
    return [
        f"wrote {target} ({target.stat().st_size / 1e6:.2f} MB, ONNX opset {OPSET})",
        *wide_weights(model),
        f"build an engine with: trtexec --onnx={target.name} --stronglyTyped {' '.join(shapes)} "
        f"--saveEngine={target.stem}.plan",
    ]


def check(model: FaceModel, files: Sequence[Path]) -> list[str]:
    """Check the file by the rules, and compare it with its student layer by layer in ONNX Runtime.

    Returns:
        Lines to print.

    Raises:
        ParityError: it breaks a rule, or does not compute what the student computes.
    """
    (target,) = files
    broken = broken_rules(read_file(target))
    if broken:
        more = f", and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise ParityError(f"{target}: is not what TensorRT takes: {'; '.join(broken[:3])}{more}")
    parity = check_layers(model, target)
    return [
        "keeps the rules of TensorRT's parser; not run on a GPU",
        f"in ONNX Runtime {len(parity.layers)} layers equal to the student's on random pixels",
    ]


def open(file: Path, threads: int | None = None) -> Run:
    """The file in ONNX Runtime, which computes what TensorRT should compute.

    Raises:
        ModelFileError: ONNX Runtime refuses the file.
    """
    return run_onnxruntime(onnxruntime_session(file, threads))
