"""Text and CSV files in UTF-8 or UTF-16: lists of pairs and of items."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from efquantface.errors import DataError

_MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def text_of(path: Path) -> str:
    r"""A text file in UTF-8, or UTF-16 with a byte-order mark; without marks, line ends as ``\n``.

    Raises:
        DataError: the file cannot be read, or is no such text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None
    return decoded(data, str(path))


def decoded(data: bytes, where: str) -> str:
    """The text of a file's bytes, as :func:`text_of` reads it; ``where`` names the file in errors.

    Raises:
        DataError: it is no such text.
    """
    try:
        encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8-sig")
        text = data.decode(encoding)
    except UnicodeError as error:
        raise DataError(f"{where}: cannot be read as text ({error})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and values of each row of a CSV file; missing values are empty.

    Raises:
        DataError: it is no such text, no CSV, or one of ``columns`` is missing.
    """
    reader = csv.DictReader(io.StringIO(text_of(path)), restval="")
    try:
        names = list(reader.fieldnames or [])
        if not set(columns) <= set(names):
            has = ", ".join(names)[:120] or "none"
            raise DataError(f"{path}:1: the columns {', '.join(columns)} are needed, has {has}")
        for row in reader:
            yield reader.line_num, {name: row[name] for name in names}
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num + 1}: is no CSV ({error})") from None
