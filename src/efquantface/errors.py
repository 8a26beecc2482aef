"""The errors that a user can cause. Their texts say what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` with the known name closest to a misspelt one; empty where none is close."""
    names = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), names, 1, cutoff=0.7)
    return f"; did you mean {names[close[0]]}?" if close else ""


class EfqError(Exception):
    """Base of every error that a user can cause; the CLI prints it without a traceback."""


class RecipeError(EfqError):
    """A recipe or a flag holds a value that cannot be used."""


class TargetError(RecipeError):
    """No way of compressing meets the target, or these faces are too few to tell."""


class AssetError(EfqError):
    """A default part cannot be fetched, or does not have the expected checksum."""


class ModelFileError(EfqError):
    """A model file is missing, damaged, of an unknown kind, or not a face-recognition network."""


class UnsupportedOperatorError(ModelFileError):
    """A graph holds operators that the importer does not know; the text names all of them."""


class NotRunnableError(ModelFileError):
    """A runtime does not load or run a file, so that nothing can be compared with it."""


class ImportMismatchError(ModelFileError):
    """An imported network does not compute what its own file or module computes."""


class NotRecognizingError(ModelFileError):
    """A network gives no embedding, or does not tell people apart under any preprocessing."""


class ContractError(EfqError):
    """A model does not fit the faces, or the preprocessing declared for it."""


class PreprocessError(ContractError):
    """The preprocessing was assumed, and another one separates people clearly better."""


class DataError(EfqError):
    """A folder, a pair list or an image set cannot be used."""


class CropError(DataError):
    """Faces are not crops aligned to the contract's template.

    Attributes:
        size: height and width that nearly all of them have; None where they differ.
    """

    size: tuple[int, int] | None = None


class EvaluationError(EfqError):
    """A protocol cannot be scored, for example because an embedding is not finite."""


class ExportError(EfqError):
    """A student cannot be written as the wanted file."""


class ParityError(ExportError):
    """An exported file does not compute what the student computed; it is not delivered as good."""


class TrainingError(EfqError):
    """Fine-tuning met a value that is not finite, or cannot continue."""


class RunError(EfqError):
    """A run's folder cannot be used: it exists, is incomplete, or belongs to another recipe."""


class FinishedError(RunError):
    """A run that was to be resumed is finished."""


class WriteError(EfqError):
    """A file cannot be written: the disk is full, or permission is missing."""


class OutOfMemoryError(EfqError):
    """The work does not fit into memory; the text says which setting needs less."""


class RuntimeMissingError(EfqError):
    """A runtime, a provider or a device that was asked for is not on this machine."""


class MissingPackageError(RuntimeMissingError):
    """A package of an extra is not installed; the text has the command that installs it."""
