"""``efq export``: a model to a file for a runtime, checked, and with a word on what runs how."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from efquantface.errors import ExportError, RunError
from efquantface.export.formats import FORMATS
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.openvino import write_openvino
from efquantface.export.parity import check_layers, has_signed_codes, on_noise
from efquantface.export.scales import write_scales
from efquantface.files import make_folder, move, temporary_folder
from efquantface.graph.model import FaceModel
from efquantface.importers.contracts import resolve
from efquantface.importers.load import load_model
from efquantface.pipeline.teacher_check import compared
from efquantface.quantize.portable import made_portable
from efquantface.rows import mean_cosine

_AS_BEFORE = 0.9  # mean cosine on random pixels, where roundings cascade more than on faces
_BESIDE = {"openvino": (".bin", ".contract.json"), "scales": (".scales.json",)}


def export_model(
    model: str,
    output: Path | None,
    file_format: str,
    *,
    as_float: bool,
    packed: bool = True,
    full_range: bool = False,
    preprocess: str | None,
    size: tuple[int, int] | None = None,
    force: bool,
) -> list[str]:
    """Write a model as a file, checked.

    Args:
        model: a run's directory, a checkpoint, or any other model with ``as_float``.
        output: the file; beside the model, or here for ``as_float``, where None. For scales X.onnx
            (with X.scales.json beside it) or X.json (with X.onnx).
        file_format: one of ``FORMATS``.
        as_float: write a float network, in the form that runtimes run fastest.
        packed: weights of few bits packed, for ONNX from opset 21.
        full_range: leave a student of full range as it is; otherwise it is made portable.
        preprocess: for files that do not say how pixels are normalized.
        size: height and width of crops, for files that leave them open.
        force: replace existing files.

    Returns:
        Lines to print: what was written, and what runs in integers.

    Raises:
        ExportError: an unknown format, a float network where a student is expected, or a student
            that cannot be made portable.
        ImportMismatchError: the network was not imported rightly; compared on random crops.
        RunError: the output exists and ``force`` is not given.
        ParityError: the file does not compute what the student computes; nothing is replaced.

    Example:
        >>> path = folder / "teacher.onnx"
        >>> lines = export_model(
        ...     str(onnx_file), path, "onnx", as_float=True, preprocess=None, force=False
        ... )
        >>> lines[0]
        'wrote ...teacher.onnx (... MB, ONNX opset ...)'
    """
    if file_format not in FORMATS:
        raise ExportError(f"format {file_format!r} is not known; choose from {', '.join(FORMATS)}")
    loaded = load_model(model, preprocess=preprocess, size=size)
    if as_float and loaded.quantized:
        raise ExportError(f"{model}: is a student; --float is for float networks (the teacher)")
    if not as_float and not loaded.quantized:
        raise ExportError(
            f"{model}: is a float network; compress it first, or write it with --float"
        )
    if as_float and file_format == "scales":
        raise ExportError(f"{model}: has no scales; --format scales is for students")
    portable: list[str] = []
    if loaded.quantized and not full_range:
        loaded, portable = _made_portable(loaded, model)
    checked = compared(model, loaded) if as_float else []
    if output is not None and output.name.endswith(".scales.json"):  # of X.onnx
        output = output.with_name(output.name.removesuffix(".scales.json") + ".onnx")
    json_given = file_format == "scales" and output is not None and output.suffix == ".json"
    beside = _BESIDE.get(file_format, ()) if not json_given else (".json",)
    if json_given and output is not None:
        output = output.with_suffix(".onnx")
    suffix = ".xml" if file_format == "openvino" else ".onnx"
    source = resolve(model)
    without_integers = as_float or file_format == "scales"
    name = f"{source.stem}.float{suffix}" if without_integers else f"{source.stem}{suffix}"
    target = output or Path.cwd() / name if as_float else output or source.with_name(name)
    files = [target.with_suffix(s) for s in (suffix, *beside)]
    if output is not None and output.suffix != suffix:
        raise ExportError(f"-o {output}: this file's name ends in {suffix}")
    for path in (target, *files):
        if path.exists() and not force:
            raise RunError(f"{path}: exists; add --force to replace it, or choose another -o")
    make_folder(target.parent)
    # files get their place once all of them are written and checked
    with temporary_folder(target.parent) as folder:
        draft = folder / target.name
        try:
            lines = _write(loaded, draft, file_format, packed, beside)
        except ExportError as error:
            raise type(error)(str(error).replace(str(draft), str(target))) from None
        for path in sorted(folder.iterdir()):
            move(path, target.parent / path.name)
    written = [line.replace(str(folder), str(target.parent)) for line in lines]
    return portable + written + checked


def _made_portable(student: FaceModel, name: str) -> tuple[FaceModel, list[str]]:
    """The student as a portable file holds it, and what there is to say of it.

    Raises:
        ExportError: rounding again moves its embeddings too far.
    """
    made, layers = made_portable(student)
    if not layers:
        return student, []
    noise, before = on_noise(student)
    pixels = torch.from_numpy(student.contract.pixels(noise))
    cosine = mean_cosine(before, made.embed_pixels(pixels).numpy())
    if cosine < _AS_BEFORE:
        raise ExportError(
            f"{name}: cannot be made portable; rounding {len(layers)} layers again leaves a mean cosine "
            f"of {cosine:.3f} to the student on random pixels. Compress again, or add --full-range for "
            "processors with VNNI only"
        )
    return made, [
        f"made portable: {len(layers)} layers of full range rounded again; mean cosine {cosine:.4f} to "
        "the student on random pixels (efq evaluate tells what that costs on faces)"
    ]


def _write(
    loaded: FaceModel, target: Path, file_format: str, packed: bool, beside: tuple[str, ...]
) -> list[str]:
    """Write and check the files (``beside``: endings of further ones); returns the lines to print."""
    if file_format == "scales":
        written = write_scales(loaded, target, target.with_suffix(beside[0]))
        return [f"wrote {target} (float, BatchNorm folded) and {written}"]
    if file_format == "openvino":
        return write_openvino(loaded, target)
    write_onnx(loaded, target, packed=packed)
    parity = check_layers(loaded, target)
    found, checked = parity.executed, ""
    if loaded.quantized:
        checked = f"; {len(parity.layers)} layers equal to the student's on random pixels"
    listed = ", ".join(f"{op} {count}" for op, count in found.counts.items())
    opset = onnx.load(str(target)).opset_import[0].version
    lines = [
        f"wrote {target} ({target.stat().st_size / 1e6:.2f} MB, ONNX opset {opset})",
        f"in ONNX Runtime: {found.describe()} (pixels come in and the embedding goes out float)"
        f"{checked}",
        f"operators: {listed}",
    ]
    if loaded.quantized:
        lines.append(parity.portability)
        if has_signed_codes(loaded):
            lines.append(
                "signed codes: ONNX Runtime on x86 runs them in float unless a client sets the session "
                "option session.qdqisint8allowed=1"
            )
    return lines
