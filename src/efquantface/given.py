"""Checks single values of settings, and sorts flat settings into their parts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel

from efquantface.contract import PREPROCESS, parse_size
from efquantface.distill.settings import TrainSettings
from efquantface.errors import ContractError, RecipeError, did_you_mean
from efquantface.evaluation.settings import EvalSettings

_DEVICE = re.compile(r"cpu|cuda(:\d+)?")
_T = TypeVar("_T")


def check_preprocess(name: str) -> str:
    """Check the name of a preprocessing; returns it.

    Raises:
        RecipeError: it is not known; the text suggests the closest.
    """
    if name not in PREPROCESS:
        raise RecipeError(
            f"preprocess {name!r}: choose from {', '.join(PREPROCESS)}"
            f"{did_you_mean(name, PREPROCESS)}"
        )
    return name


def check_size(text: str) -> str:
    """Check height and width of crops, ``160`` or ``112x96``; returns the text.

    Raises:
        RecipeError: it has another form.
    """
    try:
        parse_size(text)
    except ContractError as error:
        raise RecipeError(str(error)) from None
    return text


def check_device_name(name: str) -> str:
    """Check ``cpu``, ``cuda`` or ``cuda:1``; returns the name.

    Raises:
        RecipeError: it is another name.
    """
    if not _DEVICE.fullmatch(name):
        raise RecipeError(f"device {name!r}: write cpu or cuda (cuda:1 is the second GPU)")
    return name


def told(check: Callable[[str], _T], value: str) -> _T:
    """``check(value)``, with its RecipeError as a ValueError, which pydantic collects."""
    try:
        return check(value)
    except RecipeError as error:
        raise ValueError(str(error)) from None


NESTED: dict[str, type[BaseModel]] = {"training": TrainSettings, "evaluation": EvalSettings}
_RENAMED = {"step_lr": "range_lr", "images_each": "images_per_identity"}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Put flat settings (flags, keywords, flat recipes) into ``training`` and ``evaluation``.

    A flat value overrides a nested one. None means not given.
    """
    found: dict[str, Any] = {}
    parts = {name: dict(p) for name in NESTED if isinstance(p := values.get(name) or {}, dict)}
    for key, value in values.items():
        name = _RENAMED.get(key, key)
        if value is None or name in parts:
            continue
        part = next((p for p in parts if name in NESTED[p].model_fields), None)
        (found if part is None else parts[part])[name] = value
    return {**found, **{name: part for name, part in parts.items() if part}}
