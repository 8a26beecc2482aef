"""``efq cache``: lists and removes cached embeddings."""

from __future__ import annotations

from typing import Annotated

import typer

from efquantface.cli.group import EfqGroup
from efquantface.cli.verb import say, verb

cache_app = typer.Typer(
    cls=EfqGroup,
    no_args_is_help=True,
    help="The user's cache: teachers' embeddings (biometric data) and default parts.",
)


@verb(cache_app, "efq cache list", name="list")
def cache_list() -> None:
    """List what the cache holds, and where. EFQ_CACHE sets another folder."""
    from efquantface.assets import cache_dir
    from efquantface.verbs.kept import list_cache

    kept = list_cache()
    for part in kept:
        say(part.describe())
    if not kept:
        say(f"nothing is cached in {cache_dir()}")


@verb(cache_app, "efq cache clear", name="clear")
def cache_clear(
    everything: Annotated[
        bool,
        typer.Option("--all", help="remove default parts, too; they are fetched again when needed"),
    ] = False,
) -> None:
    """Remove the cached embeddings. compress --no-cache stores none."""
    from efquantface.verbs.kept import clear_cache

    removed = clear_cache(everything)
    for part in removed:
        say(f"removed {part.describe()}")
    if not removed:
        say("there was nothing to remove")
