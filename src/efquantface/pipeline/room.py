"""Room on disk that a run takes, told and looked at before its work begins."""

from __future__ import annotations

import numpy as np

from efquantface.errors import WriteError
from efquantface.files import free_bytes
from efquantface.pipeline.inputs import Inputs
from efquantface.pipeline.run_dir import Run

_NUMBER = 4  # bytes
_OF_THE_STATE = 4  # weights, their best, two moments
_OF_THE_STUDENT = 2  # checkpoint and ONNX file
_BESIDES = 8_000_000  # bytes: report, metrics, log


def needed_bytes(run: Run, inputs: Inputs) -> int:
    """At most, in the run's folder."""
    # a state stays until the next one is whole
    state = 2 * _OF_THE_STATE if run.recipe.training.epochs else 0
    bank = 0  # rows that do not fit into memory, where they are not cached
    if not (run.recipe.cache or isinstance(inputs.faces.images, np.ndarray)):
        bank = 2 * len(inputs.faces) * inputs.teacher.contract.embedding_size * _NUMBER
    weights = inputs.teacher.model.parameters * _NUMBER * (state + _OF_THE_STUDENT)
    return weights + bank + _BESIDES


def check_room(run: Run, inputs: Inputs) -> None:
    """The disk has room for the run.

    Raises:
        WriteError: it has not.
    """
    path = run.directory.path
    needed, left = needed_bytes(run, inputs), free_bytes(path)
    if left < needed:
        raise WriteError(
            f"{path}: a run needs about {needed / 1e6:,.0f} MB there, {left / 1e6:,.0f} MB are left; "
            "make room, or choose another -o"
        )
