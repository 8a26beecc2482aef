"""Options that several verbs share, and how tables are printed."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="cpu or cuda")]
Threads = Annotated[int | None, typer.Option(help="threads; all cores by default")]
Preprocess = Annotated[
    str | None,
    typer.Option(
        help="insightface (RGB, (x-127.5)/127.5), adaface (the same in BGR), imagenet, raw (0..255) or "
        "unit (0..1), the last two also raw-bgr and unit-bgr, for files that do not say how pixels are "
        "normalized; efq inspect MODEL --faces DIR tries them"
    ),
]
Evals = Annotated[
    list[str] | None,
    typer.Option(
        "--eval",
        help="NAME=PATH or PATH: LFW's folder with pairs.txt, CALFW's, CPLFW's, CFP's, AgeDB's, RFW's, "
        "IJB's as they are handed out; a .bin or a folder of them; pairs=FILE.csv (columns a, b, same); "
        "folder=DIR (all pairs of a folder of identities); a folder with gallery and probe; may be "
        "repeated",
    ),
]
Flip = Annotated[bool, typer.Option("--flip", help="add the mirror image's embedding")]
Threshold = Annotated[
    float | None, typer.Option(help="a cosine threshold you deploy: adds FAR and FRR there")
]
ArcFace = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="arcface: also the numbers that arcface_torch prints for pairs (turns --flip on)",
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        help="CSV file with the columns name (of an identity or image) and group: the spread between "
        "groups"
    ),
]
Templates = Annotated[
    str | None,
    typer.Option(
        help="how IJB's crops are pooled: N (keep lengths), D (weigh by detector), F (add the mirror "
        "image), each 0 or 1  [default: N1D1F1]"
    ),
]
Resize = Annotated[bool, typer.Option("--resize", help="scale crops of another size")]


def wants_arcface(protocol: str | None) -> bool:
    """Whether ``--protocol`` asks for arcface_torch's numbers."""
    if protocol not in (None, "arcface"):
        raise typer.BadParameter("--protocol knows arcface only; other numbers are always given")
    return protocol == "arcface"


def print_table(table: object) -> None:
    """Print a table at the terminal's width."""
    from rich.console import Console as RichConsole

    RichConsole(soft_wrap=False).print(table)
