"""Reads numbers, JSON and YAML that others wrote: the result is a value or a ``ValueError``."""

from __future__ import annotations

import json
from typing import Any

_DIGITS = 18  # numbers of so many digits fit 64 bits


def is_number(text: str) -> bool:
    """Whether a text is a whole number from 0 on, in ASCII digits, that fits 64 bits.

    Example:
        >>> is_number("300"), is_number("\u00b2"), is_number("-1"), is_number("9" * 5000)
        (True, False, False, False)
    """
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of plain data.

    Aliases are refused, since with them a small file becomes large.

    Raises:
        ValueError: it is no YAML, is nested too deeply, or has an alias.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader without aliases."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                event: Any = self.peek_event()  # type: ignore[no-untyped-call]
                line = event.start_mark.line + 1
                raise ValueError(f"line {line}: an alias (*{event.anchor}); write the value out")
            return super().compose_node(parent, index)

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
