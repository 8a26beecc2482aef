"""What made a student: command, date, versions and digests, without paths of folders."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from efquantface.assets import file_sha256
from efquantface.fields import flag_name, settings
from efquantface.recipe import Recipe

_DIGITS = 16  # of a digest


@dataclass(frozen=True)
class Provenance:
    """What made a student.

    Attributes:
        command: repeats the run in a folder that has the files.
        date: YYYY-MM-DD, when the run ended.
        versions: of the packages that numbers depend on.
        teacher, faces, student: first 16 hexadecimal digits of the SHA-256 of the teacher's file, of the
            crops and identities, and of the exported file.
        licence: the teacher's licence note; empty where none was given.
    """

    command: str
    date: str
    versions: dict[str, str]
    teacher: str
    faces: str
    student: str
    licence: str = ""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        inputs: Mapping[str, Any],
        packages: Mapping[str, str | None],
        student: Path,
    ) -> Provenance:
        """The provenance of a run that ends now.

        Args:
            recipe: its settings.
            inputs: digests of ``teacher`` and ``faces``.
            packages: versions, None where a package is not installed.
            student: the exported file.
        """
        return cls(
            command(recipe),
            datetime.date.today().isoformat(),
            {name: version for name, version in packages.items() if version},
            inputs["teacher"],
            inputs["faces"],
            file_sha256(student)[:_DIGITS],
            recipe.licence,
        )


def command(recipe: Recipe) -> str:
    """The command line of a recipe, with the settings that are not the defaults."""
    start = {"teacher": recipe.teacher, "faces": recipe.faces, "prune": recipe.prune}
    usual, own = _flat(Recipe.create(start)), _flat(recipe)
    words = ["efq", "compress", without_folders(recipe.teacher), without_folders(recipe.faces)]
    if recipe.prune is not None:
        words += ["--prune", str(recipe.prune)]
    for name, value in own.items():
        if value == usual[name] or name in start:
            continue
        flag = flag_name(Recipe, name)
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, dict):
            words += [word for key, bits in value.items() for word in (flag, f"{key}={bits}")]
        elif isinstance(value, tuple | list):
            words += [word for item in value for word in (flag, without_folders(str(item)))]
        else:
            words += [flag, without_folders(str(value))]
    return shlex.join(words)


def as_yaml(recipe: Mapping[str, Any]) -> str:
    """A recipe as YAML for ``--recipe``; absolute paths keep their last name only."""
    return yaml.safe_dump(_without_folders(dict(recipe)), sort_keys=False, allow_unicode=True)


def without_folders(word: str) -> str:
    """A word; an absolute path in it keeps its last name only.

    Example:
        >>> without_folders("lfw=/data/lfw"), without_folders("faces/train.rec")
        ('lfw=lfw', 'faces/train.rec')
    """
    name, equals, path = word.rpartition("=")
    return f"{name}{equals}{Path(path).name}" if Path(path).is_absolute() else word


def _without_folders(value: Any) -> Any:
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, dict):
        return {key: _without_folders(own) for key, own in value.items()}
    return [_without_folders(own) for own in value] if isinstance(value, list | tuple) else value


def _flat(recipe: Recipe) -> dict[str, Any]:
    """All settings by name."""
    parts = (recipe, recipe.training, recipe.evaluation)
    return {
        name: getattr(part, name)
        for name in settings(Recipe)
        for part in parts
        if name in type(part).model_fields
    }
