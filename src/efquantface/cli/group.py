"""The program's groups of verbs: a misspelt verb is answered with the closest one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from efquantface.errors import did_you_mean


class EfqGroup(TyperGroup):
    """Verbs, with a suggestion where one is misspelt or left out."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer's; the error for an unknown verb suggests the closest one."""
        wanted = args[0] if args else ""
        if not wanted or wanted.startswith("-") or self.get_command(ctx, wanted) is not None:
            return super().resolve_command(ctx, args)
        known = self.list_commands(ctx)
        close = did_you_mean(wanted, known)
        if not close and Path(wanted).exists():
            close = f"; a verb comes first, for example {ctx.command_path} {known[0]} {wanted}"
        return ctx.fail(f"no verb {wanted!r}{close or '; there are ' + ', '.join(known)}")
