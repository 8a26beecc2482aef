"""Face images in a parquet file: a column of image bytes, and optionally one of labels."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from threading import Lock
from typing import Any

from efquantface.data.source import FaceSource, NoFaces, numbered
from efquantface.downloads import stand_in
from efquantface.errors import DataError, RuntimeMissingError

IMAGES = ("image", "img", "jpg", "png", "image_bytes", "bytes")
LABELS = ("label", "identity", "id", "person", "class", "target")


class ParquetSource(FaceSource):
    """Rows of a parquet file; images are ``binary`` or ``struct{bytes, ...}``."""

    def __init__(self, path: Path) -> None:
        """Open the file; images stay in it, and are read one row group at a time.

        Raises:
            RuntimeMissingError: pyarrow is not installed.
            DataError: it is no whole parquet file, or has no column of images.
            NoFaces: it has no rows.
        """
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise RuntimeMissingError(
                "parquet files need pyarrow: pip install 'efquantface[parquet]'"
            ) from None
        self.where, self.root, self.path = str(path), path.parent, path
        instead = stand_in(path)
        if instead:
            raise DataError(f"{path}: {instead}")
        try:
            self.file = pyarrow.parquet.ParquetFile(path)
        except _damages(pyarrow) as error:
            raise _not_whole(path, error) from None
        schema = self.file.schema_arrow
        self.column = next((n for n in IMAGES if n in schema.names), None)
        if self.column is None:
            raise DataError(
                f"{path}: has no column named {', '.join(IMAGES)}; its columns are "
                f"{', '.join(schema.names)}"
            )
        if not self.file.metadata.num_rows:
            raise NoFaces(f"{path}: has no rows")
        groups = [self.file.metadata.row_group(i) for i in range(self.file.num_row_groups)]
        self.starts = [0]
        for group in groups:
            self.starts.append(self.starts[-1] + group.num_rows)
        rows = self.starts[-1]
        if not 0 < rows == self.file.metadata.num_rows <= path.stat().st_size:
            raise DataError(f"{path}: is damaged: it says that it has {rows:,} rows")
        label = next((n for n in LABELS if n in schema.names), None)
        try:
            values = [] if label is None else self.file.read([label]).column(0).to_pylist()
        except _damages(pyarrow) as error:
            raise _not_whole(path, error) from None
        if label is not None and len(values) != rows:
            raise DataError(f"{path}: is damaged: {len(values):,} values of {label}, {rows:,} rows")
        labels = [_label(v) for v in values] or [""] * rows
        self.identities, self.identity_names = numbered(labels)
        self._cached: tuple[int, Any] = (-1, None)
        self._lock = Lock()  # faces are decoded by several threads

    def name(self, index: int) -> str:
        return f"{self.path.name}#{index}"

    def encoded(self, index: int) -> bytes:
        group = bisect_right(self.starts, index) - 1
        with self._lock:
            held, column = self._cached
            if held != group:
                import pyarrow

                try:
                    column = self.file.read_row_group(group, [self.column]).column(0)
                except _damages(pyarrow) as error:
                    raise _not_whole(self.path, error) from None
                self._cached = (group, column)
        place = index - self.starts[group]
        if place >= len(column):
            raise DataError(f"{self.path}: is damaged: row {index} is not there")
        return image_bytes(column[place].as_py(), f"{self.path}: row {index}")


def image_bytes(value: Any, where: str) -> bytes:
    """The image bytes in a cell (``bytes``, or a table with ``bytes``).

    Raises:
        DataError: it holds none.
    """
    if isinstance(value, dict):
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise DataError(f"{where} holds no image bytes")
    return value


def _damages(pyarrow: Any) -> tuple[type[Exception], ...]:
    """The exceptions that pyarrow raises for damaged files."""
    return (pyarrow.ArrowException, OSError, ValueError, OverflowError)


def _not_whole(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: is not a whole parquet file ({str(error)[:200]})")


def _label(value: Any) -> str:
    return f"{value:06d}" if isinstance(value, int) else str(value)
