"""The disk space that a run needs, checked before its work begins."""

from __future__ import annotations

import numpy as np

from efquantface.errors import WriteError
from efquantface.files import free_bytes
from efquantface.pipeline.inputs import Inputs
from efquantface.pipeline.run_dir import Run

_NUMBER = 4  # bytes
_OF_THE_STATE = 4  # values a weight: itself, the best so far, two moments
_OF_THE_STUDENT = 2  # values a weight: checkpoint and ONNX file
_BESIDES = 8_000_000  # bytes of report, metrics, log


def needed_bytes(run: Run, inputs: Inputs) -> int:
    """The most bytes that a run takes in its folder."""
    # the old state is kept until the new one is written
    state = 2 * _OF_THE_STATE if run.recipe.training.epochs else 0
    bank = 0  # rows of crops that are not in memory, if they are not cached
    if not (run.recipe.cache or isinstance(inputs.faces.images, np.ndarray)):
        bank = 2 * len(inputs.faces) * inputs.teacher.contract.embedding_size * _NUMBER
    weights = inputs.teacher.model.parameters * _NUMBER * (state + _OF_THE_STUDENT)
    return weights + bank + _BESIDES


def check_room(run: Run, inputs: Inputs) -> None:
    """Check that the disk has space for the run.

    Raises:
        WriteError: it does not.
    """
    path = run.directory.path
    needed, left = needed_bytes(run, inputs), free_bytes(path)
    if left < needed:
        raise WriteError(
            f"{path}: a run needs about {needed / 1e6:,.0f} MB there, {left / 1e6:,.0f} MB are left; "
            "make room, or choose another -o"
        )
