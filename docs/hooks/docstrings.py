"""Docstrings as the site reads them.

Sphinx roles become plain names: ``:func:`~a.b` `` is ``b``. The section ``Example:`` becomes
``Examples:``.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":\w+:`(?:~[\w.]*?)?(\w+)`|:\w+:`([\w.]+)`")
_EXAMPLE = re.compile(r"^(\s*)Example:$", re.MULTILINE)


class Docstrings(Extension):
    """Rewrites every docstring when its object has been read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = _ROLE.sub(lambda m: f"`{m[1] or m[2]}`", obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(r"\1Examples:", text)
