"""Options that several verbs share; most take their help from the recipe's settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from efquantface.cli.flags import option
from efquantface.codes import EMBEDDINGS
from efquantface.contract import parse_size
from efquantface.errors import did_you_mean
from efquantface.given import check_device_name, check_preprocess, check_size
from efquantface.runtime.backends import NAMES


def _checked(name: str, check: Callable[[str], str]) -> typer.models.OptionInfo:
    """The flag of a setting whose value is checked while flags are read."""
    made = option(name)
    made.callback = lambda value: None if value is None else check(value)
    made.rich_help_panel = None
    return made


def _shown(name: str) -> typer.models.OptionInfo:
    """The flag of a setting, in no group."""
    made = option(name)
    made.rich_help_panel = None
    return made


def one_of(*names: str) -> Callable[[str], str]:
    """A callback that accepts one of ``names``; its error suggests the closest one."""

    def check(value: str) -> str:
        if value not in names:
            raise typer.BadParameter(
                f"choose from {', '.join(names)}, not {value!r}{did_you_mean(value, names)}"
            )
        return value

    return check


Embedding = Annotated[
    str,
    typer.Option(
        "--embedding",
        help="float32, or int8: codes with one scale per vector, a quarter of the bytes",
        callback=one_of(*EMBEDDINGS),
    ),
]
Backend = Annotated[str, typer.Option(help=", ".join(NAMES), callback=one_of(*NAMES))]
Device = Annotated[str | None, _checked("device", check_device_name)]
Threads = Annotated[int | None, _shown("threads")]
Preprocess = Annotated[str | None, _checked("preprocess", check_preprocess)]
Size = Annotated[str | None, _checked("size", check_size)]
Evals = Annotated[list[str] | None, _shown("eval")]
Flip = Annotated[bool | None, _shown("flip")]
Threshold = Annotated[float | None, _shown("threshold")]
GroupBy = Annotated[str | None, _shown("group_by")]
Templates = Annotated[str | None, _shown("templates")]
FollowLinks = Annotated[bool | None, _shown("follow_links")]
Resize = Annotated[bool | None, _shown("resize")]
ArcFace = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="arcface: the same as --arcface",
        rich_help_panel="Evaluation",
        callback=lambda value: value if value is None else one_of("arcface")(value),
    ),
]
Arc = Annotated[bool | None, _shown("arcface")]


def in_pixels(size: str | None) -> tuple[int, int] | None:
    """Height and width in pixels from ``--size``; None where it is not given."""
    return None if size is None else parse_size(size)


def wants_arcface(protocol: str | None) -> bool:
    """Whether ``--protocol`` asks for arcface_torch's numbers."""
    return protocol == "arcface"
