"""``efq export``: writes a model as a file for a runtime, and checks it."""

from __future__ import annotations

from pathlib import Path

import torch

from efquantface.errors import ExportError, RunError
from efquantface.export.parity import on_noise
from efquantface.files import make_folder, move, temporary_folder
from efquantface.formats.delivery import deliver
from efquantface.formats.table import Choices, Format, known
from efquantface.graph.model import FaceModel
from efquantface.importers.contracts import resolve
from efquantface.importers.load import load_model
from efquantface.pipeline.teacher_check import compared
from efquantface.quantize.portable import made_portable
from efquantface.rows import mean_cosine

_AS_BEFORE = 0.9  # least mean cosine on random pixels; roundings cascade more there than on faces


def export_model(
    model: str,
    output: Path | None,
    file_format: str,
    *,
    as_float: bool,
    packed: bool = True,
    runtime: str = "auto",
    full_range: bool = False,
    preprocess: str | None,
    size: tuple[int, int] | None = None,
    force: bool,
) -> list[str]:
    """Write a model as a file, checked.

    Args:
        model: a run's folder, a checkpoint, or any other model with ``as_float``.
        output: the file or folder. None puts it beside the model, with ``as_float`` into the current
            folder. The format ``scales`` takes X.onnx (and writes X.scales.json) or X.json (and writes
            X.onnx).
        file_format: one of ``FORMATS``.
        as_float: write a float network, in the form that runtimes run fastest.
        packed: pack weights of few bits, for ONNX from opset 21.
        runtime: of a site's model: ``litert``, ``onnxruntime``, or ``auto`` for the first that can.
        full_range: keep a student of full range. Otherwise it is made portable where the format's
            kernels may add in 16 bits.
        preprocess: for files that do not say how pixels are normalized.
        size: height and width of crops, for files that leave them open.
        force: replace existing files, or a folder of the same format.

    Returns:
        Lines to print: the files written, and what runs in integers.

    Raises:
        ExportError: an unknown format, a float network where a student is expected, or a student
            that cannot be made portable.
        ImportMismatchError: the imported network does not compute what the file computes, compared on
            random crops.
        RunError: the output exists and ``force`` is not given, or is a folder of something else.
        ParityError: the file does not compute what the student computes; nothing is replaced.

    Example:
        >>> path = folder / "teacher.onnx"
        >>> lines = export_model(
        ...     str(onnx_file), path, "onnx", as_float=True, preprocess=None, force=False
        ... )
        >>> lines[0]
        'wrote ...teacher.onnx (... MB, ONNX opset ...)'
    """
    form = known(file_format)
    loaded = load_model(model, preprocess=preprocess, size=size)
    if as_float and loaded.quantized:
        raise ExportError(f"{model}: is a student; --float is for float networks (the teacher)")
    if not as_float and not loaded.quantized:
        raise ExportError(
            f"{model}: is a float network; compress it first, or write it with --float"
        )
    if as_float and not form.floats:
        raise ExportError(f"{model}: --format {form.name} is for students, not for --float")
    portable: list[str] = []
    if loaded.quantized and form.sums16 and not full_range:
        loaded, portable = _made_portable(loaded, model)
    checked = compared(model, loaded) if as_float else []
    source = resolve(model)
    name = form.called(f"{source.stem}{'.float' if as_float else form.between}")
    output = output or (Path.cwd() / name if as_float else source.with_name(name))
    for path in form.files(output):
        _check_free(path, form, force)
    beside = output.parent
    make_folder(beside)
    # files get their place once all of them are written and checked
    with temporary_folder(beside) as folder:
        try:
            lines = deliver(loaded, form, folder / output.name, Choices(packed, runtime))
        except ExportError as error:
            raise type(error)(str(error).replace(str(folder), str(beside))) from None
        for path in form.files(output):
            move(folder / path.name, path)
    written = [line.replace(str(folder), str(beside)) for line in lines]
    return portable + written + checked


def _check_free(path: Path, form: Format, force: bool) -> None:
    """Raise RunError where ``path`` exists and must not be replaced."""
    if not path.exists():
        return
    if not force:
        raise RunError(f"{path}: exists; add --force to replace it, or choose another -o")
    if form.suffix and path.is_dir():
        raise RunError(f"{path}: is a folder; choose another -o")
    if not form.suffix and not (path / form.mark).is_file():
        raise RunError(
            f"{path}: was not written by --format {form.name}; move it away, or choose another -o"
        )


def _made_portable(student: FaceModel, name: str) -> tuple[FaceModel, list[str]]:
    """The portable student, and lines that say what was changed.

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
        "the student on random pixels (efq evaluate measures the loss on faces)"
    ]
