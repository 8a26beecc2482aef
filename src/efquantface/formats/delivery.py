"""From a model to the files of a format: refused with a reason, or written and checked."""

from __future__ import annotations

from pathlib import Path

from efquantface.errors import EfqError, ExportError
from efquantface.files import remove
from efquantface.formats.table import Choices, Format
from efquantface.graph.model import FaceModel


def deliver(
    model: FaceModel, form: Format, output: Path, choices: Choices | None = None
) -> list[str]:
    """Write the files of a format and check them.

    Args:
        model: a student, or a float network where the format takes one.
        form: the format.
        output: the name of ``-o``; :meth:`Format.files` gives the files.

    Returns:
        Lines to print.

    Raises:
        ExportError: the format cannot carry the model, or the name has the wrong ending. Nothing is
            written.
        ParityError: the files do not compute what the model computes. They are removed.
        RuntimeMissingError: the runtime that checks them is not installed. They are removed.
    """
    files = form.files(output)
    said = form.room.refused(model)
    if said:
        raise ExportError(f"{model.name}: {said}")
    try:
        lines = form.room.write(model, files, choices or Choices())
        return lines + form.room.check(model, files)
    except EfqError:
        for path in files:
            remove(path)
        raise
