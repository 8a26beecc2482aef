"""The saved state of training: written whole or not at all, and read without running pickled code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from efquantface.errors import RunError
from efquantface.files import whole
from efquantface.stored import load_stored


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write ``state``: tensors, numbers, and lists and dictionaries of them.

    Raises:
        WriteError: the file cannot be written.
    """
    with whole(path) as stream:
        patient = _Patient(stream)
        torch.save(state, cast(IO[bytes], patient))
        if patient.error is not None:
            raise patient.error


class _Patient(io.RawIOBase):
    """A stream that keeps its first error, because torch's writer would replace it by its own."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write ``data``; after an error, write nothing."""
        try:
            if self.error is None:
                self.stream.write(data)
        except OSError as error:
            self.error = error
        return len(data)


def read_state(file: Path, total: int, path: Path | None = None) -> dict[str, Any]:
    """Read the state that a run of ``total`` steps saved.

    Args:
        file: is read.
        total: steps of the training.
        path: for errors, if ``file`` is a copy; None: ``file``.

    Raises:
        RunError: the file cannot be read, or was saved by another run or another version.
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
    """The error for a state that cannot be resumed from."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RunError(f"{path}: cannot be resumed from ({reason})")
