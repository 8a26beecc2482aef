"""What all verbs share: an example in the help, ``-q`` and ``-v``, and numbers as JSON."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from efquantface.cli.flags import keyword
from efquantface.errors import DataError
from efquantface.text import plain

_COLUMNS = 100  # width that every table fits
OUTPUT = "Output"  # the last group of options
Json = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="also write the numbers as JSON; - prints them to the terminal, and nothing else",
        rich_help_panel=OUTPUT,
    ),
]
_QUIET = typer.Option(
    "-q", "--quiet", help="print the results only", rich_help_panel=OUTPUT, show_default=False
)
_VERBOSE = typer.Option(
    "-v", "--verbose", help="print more details", rich_help_panel=OUTPUT, show_default=False
)


def verb(app: typer.Typer, *examples: str, name: str | None = None) -> Callable[..., Any]:
    """Register a function as a verb of ``app``; its docstring and the examples are the help.

    ``-q`` and ``-v`` are added and set how much the console says; ``--json -`` is quiet, too.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        given = list(signature.parameters.values())
        added = [keyword("quiet", bool, _QUIET, False), keyword("verbose", bool, _VERBOSE, False)]

        def run(**values: Any) -> None:
            from efquantface.console import set_verbosity

            quiet, verbose = values.pop("quiet"), values.pop("verbose")
            where = values.get("json_")
            check_writable(where)
            set_verbosity(-1 if quiet or where == "-" else int(verbose))
            function(**values)

        keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in given]
        functools.update_wrapper(run, function)
        del run.__wrapped__  # type: ignore[attr-defined]
        run.__signature__ = inspect.Signature(keywords + added)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in keywords + added}
        lead = "Example:" if len(examples) == 1 else "Examples:"
        app.command(name, epilog="\n\n".join([lead, *examples]))(run)
        return function

    return register


def check_writable(where: str | None) -> None:
    """Check that ``--json FILE`` names a file in an existing folder.

    Raises:
        DataError: it does not.
    """
    if where not in (None, "-") and (Path(where).is_dir() or not Path(where).parent.is_dir()):
        raise DataError(f"--json {where}: write FILE in a folder that is there, or -")


def give(shown: object, numbers: Any, where: str | None) -> None:
    """Print lines or a table, and write ``numbers`` as JSON where ``--json`` says."""
    text = "" if where is None else json.dumps(numbers, indent=2)
    if where == "-":
        sys.stdout.write(text + "\n")
        return
    if isinstance(shown, list):
        for line in shown:
            say(line)
    else:
        print_table(shown)
    if where is not None:
        from efquantface.files import write_text

        write_text(Path(where), text + "\n")


def say(line: str) -> None:
    """Print a line; control characters in it are escaped."""
    typer.echo(plain(line))


def print_table(table: object) -> None:
    """Print a table at the terminal's width; in a file or pipe, at a width that every table fits."""
    from rich.console import Console as RichConsole

    console = RichConsole(soft_wrap=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, _COLUMNS)
    console.print(table)
