"""Options that several verbs share, and how tables are printed."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="cpu or cuda")]
Threads = Annotated[int | None, typer.Option(help="threads; all cores by default")]
Preprocess = Annotated[
    str | None,
    typer.Option(
        help="insightface (RGB, (x-127.5)/127.5), adaface (the same in BGR), imagenet or raw "
        "(0..255), for files that do not say how pixels are normalized"
    ),
]
Evals = Annotated[
    list[str] | None,
    typer.Option(
        "--eval",
        help="lfw=DIR (with pairs.txt), folder=DIR (all pairs of a folder of identities) or "
        "pairs=FILE.csv (columns a, b, same); may be repeated",
    ),
]
Flip = Annotated[bool, typer.Option("--flip", help="add the mirror image's embedding")]
Threshold = Annotated[
    float | None, typer.Option(help="a cosine threshold you deploy: adds FAR and FRR there")
]
Resize = Annotated[bool, typer.Option("--resize", help="scale crops of another size")]


def print_table(table: object) -> None:
    """Print a table at the terminal's width."""
    from rich.console import Console as RichConsole

    RichConsole(soft_wrap=False).print(table)
