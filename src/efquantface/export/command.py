"""``efq export``: a model to a file for a runtime, checked, and with a word on what runs how."""

from __future__ import annotations

from pathlib import Path

from efquantface.errors import ExportError, ParityError, RunError, RuntimeMissingError
from efquantface.export.onnx_writer import OPSET, write_onnx
from efquantface.export.parity import check_layers, operators
from efquantface.loading import load_model, resolve

FORMATS = ("onnx", "openvino")


def export_model(
    model: str,
    output: Path | None,
    file_format: str,
    *,
    as_float: bool,
    preprocess: str | None,
    force: bool,
) -> list[str]:
    """Write the file; returns the lines to print.

    Raises:
        ExportError: an unknown format, or a float network where a student is expected.
        RunError: the output exists and ``force`` is not given.
        ParityError: the file does not compute what the student computes; it is removed.
    """
    if file_format not in FORMATS:
        raise ExportError(f"format {file_format!r} is not known; choose from {FORMATS}")
    loaded = load_model(model, preprocess=preprocess)
    if as_float and loaded.quantized:
        raise ExportError(f"{model}: is a student; --float is for float networks (the teacher)")
    if not as_float and not loaded.quantized:
        raise ExportError(
            f"{model}: is a float network; compress it first, or write it with --float"
        )
    suffix = ".onnx" if file_format == "onnx" else ".xml"
    source = resolve(model)
    name = f"{source.stem}.float{suffix}" if as_float else f"{source.stem}{suffix}"
    target = output or Path.cwd() / name if as_float else output or source.with_name(name)
    if target.exists() and not force:
        raise RunError(f"{target}: exists; add --force to replace it, or choose another -o")
    onnx_path = target.with_suffix(".export.onnx") if file_format == "openvino" else target
    write_onnx(loaded, onnx_path)
    checked = ""
    if loaded.quantized:
        try:
            layers = check_layers(loaded, onnx_path)
        except ParityError:
            onnx_path.unlink()
            raise
        checked = f"; {layers} layers equal to the student's on random pixels"
    counts, convolutions, integer = operators(onnx_path)
    listed = ", ".join(f"{op} {count}" for op, count in counts.items())
    lines = [
        f"wrote {target} ({onnx_path.stat().st_size / 1e6:.2f} MB, ONNX opset {OPSET})",
        f"in ONNX Runtime: {integer} of {convolutions} convolutions in int8{checked}; {listed}",
    ]
    if file_format == "openvino":
        _to_openvino(onnx_path, target, loaded.contract.to_json())
        lines[0] = f"wrote {target} and its .bin and .contract.json"
    return lines


def _to_openvino(onnx_path: Path, target: Path, contract: str) -> None:
    try:
        import openvino as ov
    except ImportError:
        raise RuntimeMissingError(
            "OpenVINO is not installed; pip install 'efquantface[openvino]'"
        ) from None
    try:
        ov.save_model(ov.convert_model(str(onnx_path)), str(target), compress_to_fp16=False)
        target.with_suffix(".contract.json").write_text(contract)
    finally:
        onnx_path.unlink(missing_ok=True)
