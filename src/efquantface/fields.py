"""Settings declared as pydantic fields: their flags, their values, and errors in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from efquantface.errors import did_you_mean

_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a table of NAME: VALUE",
    tuple: "a list",
    list: "a list",
}


def settings(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """All settings by name; a field that is a model is replaced by its settings."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        part = part_of(field)
        found |= {name: field} if part is None else settings(part)
    return found


def extra(field: FieldInfo, key: str) -> str | None:
    """A text in a field's ``json_schema_extra``; None where there is none."""
    found = field.json_schema_extra
    return str(found[key]) if isinstance(found, dict) and key in found else None


def flag_name(model: type[BaseModel], name: str) -> str:
    """A setting's name on the command line: ``--max-images``, or the ``flag`` that it declares."""
    field = settings(model).get(name)
    declared = None if field is None else extra(field, "flag")
    return declared or "--" + name.replace("_", "-")


def sentences(
    error: ValidationError, model: type[BaseModel], named: Callable[[str], str] = str
) -> list[str]:
    """One sentence per wrong field.

    Args:
        error: raised by validating ``model``.
        model: the settings; their parts are models, too.
        named: turns a field's name into the user's name for it.
    """
    found: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        name, field = _field(model, problem["loc"])
        called = named(name)
        if problem["type"] == "value_error":  # our own checks give a whole sentence
            text = str(problem["ctx"]["error"])
        elif problem["type"] == "missing":
            text = f"{called} is needed"
        elif field is None:
            known = [named(n) for n in settings(model)]
            text = f"{called}: there is no such setting{did_you_mean(called, known)}"
        else:
            value = problem["input"]
            close = did_you_mean(str(value), choices(field.annotation))
            text = f"{called}: give {allowed(field)}, not {value!r}{close}"
        found.setdefault(name, text)  # a union gives one error per type
    return list(found.values())


def allowed(field: FieldInfo) -> str:
    """The values that a field takes: its choices, or a kind of value and its range."""
    named = choices(field.annotation)
    if named:
        return " or ".join([", ".join(named[:-1]), named[-1]] if named[1:] else named)
    part = part_of(field)
    if part is not None:
        return "a table of " + ", ".join(part.model_fields)
    kinds = [k for k in get_args(field.annotation) or (field.annotation,) if k is not NoneType]
    if get_origin(field.annotation) in _KINDS:
        kinds = [get_origin(field.annotation)]
    text = " or ".join(_KINDS.get(kind, "another value") for kind in kinds)
    return " ".join([text, *_limits(field)])


def _limits(field: FieldInfo) -> Iterator[str]:
    for limit in field.metadata:
        if isinstance(limit, Ge):
            yield f"from {limit.ge:,}"
        elif isinstance(limit, Gt):
            yield f"above {limit.gt:,}"
        elif isinstance(limit, Le):
            yield f"up to {limit.le:,}"
        elif isinstance(limit, Lt):
            yield f"below {limit.lt:,}"


def choices(annotation: Any) -> list[str]:
    """The names that a ``Literal`` takes; empty for other types."""
    return [str(c) for c in get_args(annotation)] if get_origin(annotation) is Literal else []


def part_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model that a field holds; None where it holds a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _field(model: type[BaseModel], place: tuple[int | str, ...]) -> tuple[str, FieldInfo | None]:
    """The name of the setting at a place in the settings, and its field; None where there is none."""
    if not place:
        return "", None
    name = str(place[0])
    field = model.model_fields.get(name)
    part = None if field is None else part_of(field)
    if part is not None and len(place) > 1:
        return _field(part, place[1:])
    return name, field
