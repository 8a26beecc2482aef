"""Flags made from the fields of Recipe and its parts, so that a setting is declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Optional, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Lt
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from typer.models import OptionInfo

from efquantface.fields import allowed, choices, extra, flag_name, settings
from efquantface.recipe import Recipe

SETTINGS = settings(Recipe)
ARGUMENTS = ("teacher", "faces")
_SIMPLE = (bool, int, float)
_METAVARS: dict[type[Any], str] = {int: "INTEGER", float: "NUMBER"}


def option(name: str) -> OptionInfo:
    """The flag of a setting: its name, help, group and shown default come from the field."""
    field = SETTINGS[name]
    flag = flag_name(Recipe, name)
    named, kind = choices(field.annotation), _type(field)
    made: OptionInfo = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=f"{field.description}{_default(field)}",
        rich_help_panel=extra(field, "group"),
        autocompletion=(lambda: named) if named else None,
        show_default=False,
        metavar=_METAVARS.get(kind),
        parser=_reads(field) if kind in _METAVARS else None,
    )
    return made


def _reads(told: FieldInfo) -> Callable[[str], Any]:
    """A parser of numbers within the field's limits."""
    kind: Any = Annotated[(told.annotation, *told.metadata)]
    taken: TypeAdapter[Any] = TypeAdapter(kind)

    def parse(text: str) -> Any:
        try:
            return taken.validate_python(text)
        except ValidationError:
            raise typer.BadParameter(f"give {allowed(told)}, not {text!r}") from None

    return parse


def share(told: str) -> OptionInfo:
    """A flag that takes a number above 0 and below 1; ``told`` is its help."""
    field = FieldInfo.from_annotation(Annotated[float, Gt(0), Lt(1)])  # type: ignore[arg-type]
    made: OptionInfo = typer.Option(help=told, metavar=_METAVARS[float], parser=_reads(field))
    return made


def whole(told: str, least: int = 1) -> OptionInfo:
    """A flag of one verb that takes a whole number from ``least`` on; ``told`` is its help."""
    field = FieldInfo.from_annotation(Annotated[int, Ge(least)])  # type: ignore[arg-type]
    made: OptionInfo = typer.Option(help=told, metavar=_METAVARS[int], parser=_reads(field))
    return made


def parameters(prefix: str = "") -> list[inspect.Parameter]:
    """Keyword parameters of all settings but TEACHER and FACES; None means not given.

    Those without a group come first, then the groups in the order in which they are declared.
    """
    names = [name for name in SETTINGS if name not in ARGUMENTS]
    groups = [extra(SETTINGS[name], "group") for name in names]
    order = [None, *dict.fromkeys(g for g in groups if g is not None)]
    pairs = sorted(zip(groups, names, strict=True), key=lambda pair: order.index(pair[0]))
    return [
        keyword(prefix + name, Optional[_type(SETTINGS[name])], option(name)) for _, name in pairs
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
    """The default as the help shows it; empty where leaving the flag out changes nothing."""
    shown, default = extra(field, "shown"), field.default
    if shown is None:
        if (
            field.is_required()
            or default is None
            or default is False
            or isinstance(default, dict | tuple)
            or default == ""
        ):
            return ""
        shown = "on" if default is True else f"{default:,}" if isinstance(default, int) else default
    return f"  [default: {shown}]"
