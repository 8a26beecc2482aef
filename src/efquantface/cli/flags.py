"""Flags made from the fields of Recipe and its parts, so that a setting is declared once."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Optional, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from typer.models import OptionInfo

from efquantface.fields import choices, extra, flag_name, settings
from efquantface.recipe import Recipe

SETTINGS = settings(Recipe)
ARGUMENTS = ("teacher", "faces")
_SIMPLE = (bool, int, float)


def option(name: str) -> OptionInfo:
    """The flag of a setting: its name, help, group and shown default come from the field."""
    field = SETTINGS[name]
    flag = flag_name(Recipe, name)
    named = choices(field.annotation)
    made: OptionInfo = typer.Option(
        f"{flag}/--no-{flag[2:]}" if _type(field) is bool else flag,
        help=f"{field.description}{_default(field)}",
        rich_help_panel=extra(field, "group"),
        metavar="|".join(named) or None,
        autocompletion=(lambda: named) if named else None,
        show_default=False,
    )
    return made


def parameters(prefix: str = "") -> list[inspect.Parameter]:
    """Keyword parameters of all settings but TEACHER and FACES; not told is None.

    Those without a group come first, then the groups in the order in which they are declared.
    """
    names = [name for name in SETTINGS if name not in ARGUMENTS]
    groups = [extra(SETTINGS[name], "group") for name in names]
    order = [None, *dict.fromkeys(g for g in groups if g is not None)]
    pairs = sorted(zip(groups, names, strict=True), key=lambda pair: order.index(pair[0]))
    return [
        keyword(prefix + name, Optional[_type(SETTINGS[name])], option(name))  # type: ignore[arg-type]
        for _, name in pairs
    ]


def keyword(name: str, kind: Any, told: OptionInfo, default: Any = None) -> inspect.Parameter:
    """A keyword parameter as typer reads it."""
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, told],
    )


def _type(field: FieldInfo) -> type[Any]:
    """What typer parses: numbers and switches as such, tables and lists as repeated texts."""
    kinds = get_args(field.annotation) or (field.annotation,)
    if get_origin(field.annotation) in (tuple, dict):
        return list[str]
    if str not in kinds and not choices(field.annotation):
        for kind in _SIMPLE:
            if kind in kinds:
                return kind
    return str


def _default(field: FieldInfo) -> str:
    shown = extra(field, "shown")
    if shown is None:
        if field.is_required() or field.default is None or field.default in ("", (), False):
            return ""
        shown = "on" if field.default is True else f"{field.default}"
        if not isinstance(field.default, str | bool | int | float):
            return ""
    return f"  [default: {shown}]"
