"""Makes names of files, people and tensors safe to show: control characters in them are escaped."""

from __future__ import annotations

import re
from pathlib import Path

from efquantface.errors import ModelFileError

# controls but tab and line feed, marks of writing direction, line separators, surrogates
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def plain(text: str) -> str:
    r"""Text that is safe in a terminal, a log, a table and a page; other characters are escaped.

    Bytes of file names that are not UTF-8 become ``\udcXX``.

    Example:
        >>> plain("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    return _UNPRINTABLE.sub(_spelt, text)


def utf8_name(path: Path) -> str:
    """A path as text for libraries that take UTF-8 only.

    Raises:
        ModelFileError: it is not UTF-8.
    """
    name = str(path)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise ModelFileError(
            f"{plain(name)}: the library that reads it takes names in UTF-8 only; rename the file"
        ) from None
    return name


def _spelt(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
