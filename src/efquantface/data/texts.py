"""Text files of other systems: lists of pairs and of items."""

from __future__ import annotations

import codecs
from pathlib import Path

from efquantface.errors import DataError

_MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def text_of(path: Path) -> str:
    r"""A text file in UTF-8, or in UTF-16 with its mark; marks are left out, line ends become ``\n``.

    Raises:
        DataError: the file cannot be read, or is no such text.
    """
    try:
        data = path.read_bytes()
        encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8-sig")
        text = data.decode(encoding)
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
