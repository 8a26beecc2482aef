"""Checks that what a user names exists, by names and folders, before anything is read."""

from __future__ import annotations

import os
from pathlib import Path

from efquantface import assets
from efquantface.data.containers import CONTAINERS
from efquantface.data.images import SUFFIXES
from efquantface.data.sources import SYNTHETIC, synthetic_count
from efquantface.errors import DataError, EfqError, ModelFileError, RecipeError, did_you_mean
from efquantface.evaluation.benchmarks.look import check_eval
from efquantface.importers.packs import is_pack
from efquantface.recipe import Recipe
from efquantface.runtime.backends import ENDINGS

# Endings that tell a model from faces. load_model decides what else it can read.
_MODELS = (*ENDINGS, ".dat", ".pt", ".pth", ".ckpt", ".safetensors", ".pkl")
_LISTS = (".txt", ".lst")
_IN_MEMORY = "<"  # in a recipe, starts the name of an object that a Python caller gave
_STUDENT = "student.safetensors"


def check_inputs(recipe: Recipe) -> None:
    """Check that everything exists that a recipe names.

    Raises:
        ModelFileError, DataError, RecipeError: something is missing or of another kind, or teacher and
            faces are swapped.
    """
    check_model_and_faces(recipe.teacher, recipe.faces)
    if recipe.exclude is not None:
        check_file(recipe.exclude, "--exclude")
    if recipe.timings is not None:
        check_file(recipe.timings, "--timings")
    if recipe.evaluation.group_by is not None:
        check_file(recipe.evaluation.group_by, "--group-by")
    for text in recipe.evaluation.eval:
        check_eval(text)


def check_model_and_faces(model: str, faces: str) -> None:
    """Check a model and a source of faces.

    Raises:
        ModelFileError, DataError: one of them is missing.
        RecipeError: they are swapped.
    """
    if _is_faces(model) and _is_model(faces):
        raise RecipeError(
            f"{model} holds faces and {faces} is a model: the model comes first, "
            f"write {faces} {model}"
        )
    check_model(model)
    check_faces(faces)


def check_model(model: str) -> None:
    """Check that ``model`` is the name of a default, a file, a run's folder or a pack of networks.

    Raises:
        ModelFileError: it is none of these.
    """
    if model in assets.MODELS or model.startswith(_IN_MEMORY):
        return
    path = Path(model)
    if path.is_dir():
        if not (path / _STUDENT).is_file() and not is_pack(path):
            raise ModelFileError(
                f"{path}: a folder without {_STUDENT} is not a run, and without .onnx files no pack "
                "of networks"
            )
    elif not path.is_file():
        names = ", ".join(assets.MODELS)
        raise ModelFileError(
            f"{path}: no such file, and not the name of a default ({names})"
            f"{_close(path, assets.MODELS)}"
        )


def check_faces(faces: str) -> None:
    """Check that ``faces`` is ``synthetic:COUNT`` or a source of faces (:func:`check_source`).

    Raises:
        DataError: it is neither.
    """
    if faces.startswith(SYNTHETIC):
        synthetic_count(faces)
    elif not faces.startswith(_IN_MEMORY):
        check_source(Path(faces))


def check_source(path: Path) -> None:
    """Check that ``path`` is a folder, or a file that holds or lists faces.

    Raises:
        DataError: it is neither.
    """
    if path.is_dir():
        return
    if not path.is_file():
        raise DataError(f"{path}: no such folder or file{_close(path)}")
    kinds = (*CONTAINERS, *_LISTS)
    if path.suffix.lower() not in kinds:
        raise DataError(
            f"{path}: faces come from a folder or a file of these kinds: {', '.join(kinds)}"
        )


def check_folder(path: Path) -> None:
    """Check that ``path`` is a folder.

    Raises:
        DataError: it is not.
    """
    if not path.is_dir():
        what = "is a file, a folder is wanted" if path.exists() else "no such folder"
        raise DataError(f"{path}: {what}{_close(path)}")


def check_file(name: str, flag: str, error: type[EfqError] = DataError) -> None:
    """Check that the file exists that a flag names.

    Raises:
        EfqError: of the class ``error``: there is no such file.
    """
    path = Path(name)
    if not path.is_file():
        what = "is a folder, a file is wanted" if path.is_dir() else "no such file"
        raise error(f"{flag} {path}: {what}{_close(path)}")


def _is_model(text: str) -> bool:
    path = Path(text)
    if text in assets.MODELS or (path / _STUDENT).is_file() or is_pack(path):
        return True
    return path.suffix.lower() in _MODELS and path.is_file()


def _is_faces(text: str) -> bool:
    path = Path(text)
    if text.startswith(SYNTHETIC) or path.suffix.lower() in (".rec", ".parquet", ".tar", *_LISTS):
        return True
    if not path.is_dir() or (path / _STUDENT).is_file() or is_pack(path):
        return False
    kinds = {*SUFFIXES, *CONTAINERS}
    with os.scandir(path) as entries:
        return any(e.is_dir() or Path(e.name).suffix.lower() in kinds for e in entries)


def _close(path: Path, names: dict[str, assets.Asset] | None = None) -> str:
    """A hint for a missing path: a similar name in its folder, or of ``names``."""
    beside = path.absolute().parent
    there = [p.name for p in beside.iterdir()] if beside.is_dir() else []
    return did_you_mean(path.name, [*there, *(names or {})])
