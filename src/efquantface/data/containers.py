"""Files that hold many faces: records, verification files, parquet, tars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from efquantface.data.parquet import ParquetSource
from efquantface.data.recordio import RecSource
from efquantface.data.source import FaceSource
from efquantface.data.tars import TarSource
from efquantface.data.verification_bin import BinSource
from efquantface.errors import DataError
from efquantface.files import is_file

CONTAINERS: dict[str, Callable[[Path], FaceSource]] = {
    ".rec": RecSource,
    ".bin": BinSource,
    ".parquet": ParquetSource,
    ".tar": TarSource,
}


def open_container(path: Path) -> FaceSource:
    """A ``.rec``, ``.bin``, ``.parquet`` or ``.tar`` file.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    if not is_file(path):
        raise DataError(f"{path}: no such file")
    return CONTAINERS[path.suffix.lower()](path)
