"""The saved state of a training run: written whole or not at all, read without unpickling code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from efquantface.errors import RunError
from efquantface.files import whole
from efquantface.stored import load_stored


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Keep ``state`` (tensors, numbers, lists and dictionaries of them)."""
    with whole(path) as stream:
        patient = _Patient(stream)
        torch.save(state, cast(IO[bytes], patient))
        if patient.error is not None:
            raise patient.error


class _Patient(io.RawIOBase):
    """A stream that keeps its error for later: torch's writer rewords what is raised below it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or, after an error, nothing."""
        try:
            if self.error is None:
                self.stream.write(data)
        except OSError as error:
            self.error = error
        return len(data)


def read_state(file: Path, total: int, path: Path | None = None) -> dict[str, Any]:
    """What was saved by a run of ``total`` steps.

    Args:
        file: what is read.
        total: steps.
        path: what errors name, where ``file`` is a copy.

    Raises:
        RunError: the file cannot be read, or another run or another version saved it.
    """
    path = path or file
    try:
        state = load_stored(file)
    except (ValueError, OSError) as error:
        raise unusable(path, error) from None
    if not isinstance(state, dict):
        raise unusable(path, ValueError(f"it holds {type(state).__name__}"))
    saved, microbatch = state.get("total"), state.get("microbatch")
    if not isinstance(saved, int) or saved != total:
        raise RunError(f"{path}: was saved by a run of {str(saved)[:40]} steps")
    if not isinstance(microbatch, int) or not isinstance(state.get("devices"), int):
        raise RunError(f"{path}: was saved by another version; start anew, without --resume")
    return state


def unusable(path: Path, error: Exception) -> RunError:
    """The error for a state that does not fit."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RunError(f"{path}: cannot be resumed from ({reason})")
