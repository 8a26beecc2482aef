"""Files of embeddings: ``.npz``, which needs NumPy only, and ``.parquet``, which needs pyarrow.

Both have the same columns. Files of shards also have facts about their source and model.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from efquantface.codes import decode
from efquantface.errors import DataError
from efquantface.extras import wanted_for
from efquantface.reading import parse_json

FORMATS = (".npz", ".parquet")
_COLUMNS = ("embeddings", "scales", "names", "identities")
_SINGULAR = {
    "embeddings": "embedding",
    "scales": "scale",
    "names": "name",
    "identities": "identity",
}
_FACTS = "efquantface.json"  # in an .npz: a member; in a parquet file: a key of its metadata
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Stored:
    """The content of a file of embeddings.

    Attributes:
        embeddings: float32 (N,D), or int8 codes (N,D).
        scales: float32 (N,) of codes; None where embeddings are float32.
        names, identities: N strings each.
        facts: about a shard's source and model; empty for other files.
    """

    embeddings: npt.NDArray[Any]
    scales: npt.NDArray[np.float32] | None
    names: list[str]
    identities: list[str]
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def rows(self) -> npt.NDArray[np.float32]:
        """Embeddings float32 (N,D), decoded where they are codes."""
        if self.scales is None:
            return np.asarray(self.embeddings, np.float32)
        return decode(self.embeddings, self.scales)

    def digest(self) -> str:
        """:func:`digest` of the columns."""
        arrays: Arrays = {"embeddings": self.embeddings}
        if self.scales is not None:
            arrays["scales"] = self.scales
        arrays |= {"names": np.array(self.names, str), "identities": np.array(self.identities, str)}
        return digest([arrays])


def digest(parts: Iterable[Arrays]) -> str:
    """SHA-256 of all columns, the same for any division into parts."""
    sums = {name: hashlib.sha256() for name in _COLUMNS}
    for part in parts:
        for name, values in part.items():
            if values.dtype.kind == "U":
                sums[name].update(b"".join(t.encode("utf-8", "replace") + b"\0" for t in values))
            else:
                little = values.astype(values.dtype.newbyteorder("<"), copy=False)
                sums[name].update(np.ascontiguousarray(little).tobytes())
    return hashlib.sha256(b"".join(sums[name].digest() for name in _COLUMNS)).hexdigest()


def write(
    kind: str,
    file: BinaryIO,
    parts: Iterable[Arrays],
    count: int,
    facts: dict[str, Any] | None = None,
) -> None:
    """Write ``count`` rows part by part.

    Args:
        kind: one of ``FORMATS``.
        file: open for writing.
        parts: arrays of the same names; they are iterated several times.
        count: rows of all parts.
        facts: plain data to store with the rows.

    Raises:
        MissingPackageError: ``.parquet`` without pyarrow.
    """
    (_write_npz if kind == ".npz" else _write_parquet)(file, parts, count, facts)


def read(path: Path) -> Stored:
    """Read a file of embeddings.

    Raises:
        DataError: it is missing, damaged, or no file of embeddings.
        MissingPackageError: a ``.parquet`` without pyarrow.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".parquet":
        with wanted_for(f"{path}: parquet"):
            pass
    try:
        arrays, facts = _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
        rows, texts = arrays["embeddings"], [arrays[n] for n in ("names", "identities")]
    except Exception as error:  # zipfile, NumPy and Arrow raise many kinds
        raise DataError(f"{path}: no whole file of embeddings ({str(error)[:200]})") from None
    scales = arrays.get("scales")
    floats = np.dtype(np.float32)
    wanted = floats if scales is None else np.dtype(np.int8)
    fits = (
        all(isinstance(a, np.ndarray) for a in arrays.values())  # members of a zip may be anything
        and (rows.ndim, rows.dtype) == (2, wanted)
        and all(a.shape == rows.shape[:1] and a.dtype.kind == "U" for a in texts)
        and (scales is None or (scales.shape, scales.dtype) == (rows.shape[:1], floats))
        and isinstance(facts, dict)
    )
    if not fits:
        raise DataError(f"{path}: no file of embeddings: its columns do not belong together")
    names, people = (a.tolist() for a in texts)
    return Stored(rows, scales, names, people, facts)


def _write_npz(
    file: BinaryIO, parts: Iterable[Arrays], count: int, facts: dict[str, Any] | None
) -> None:
    """Write each array's header, then its rows part by part; texts are compressed."""
    names = [n for n in _COLUMNS if n in next(iter(parts))]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            dtype = max((part[name].dtype for part in parts), key=lambda d: d.itemsize)
            shapes = {part[name].shape[1:] for part in parts if len(part[name])}
            width = shapes.pop() if shapes else next(iter(parts))[name].shape[1:]
            header = {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": (count, *width),
            }
            member = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date: equal rows, equal bytes
            if dtype.kind == "U":
                member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array_header_2_0(stream, header)
                for part in parts:
                    stream.write(np.ascontiguousarray(part[name].astype(dtype)).tobytes())
        if facts is not None:
            archive.writestr(zipfile.ZipInfo(_FACTS), json.dumps(facts))


def _read_npz(path: Path) -> tuple[Arrays, dict[str, Any]]:
    with np.load(path, allow_pickle=False) as stored:
        found = {name: stored[name] for name in _COLUMNS if name in stored.files}
        facts = parse_json(stored[_FACTS]) if _FACTS in stored.files else {}
    return found, facts


def _write_parquet(
    file: BinaryIO, parts: Iterable[Arrays], count: int, facts: dict[str, Any] | None
) -> None:
    """Write one row group per part; an empty file has its columns, too."""
    with wanted_for("parquet"):
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    writer = None
    try:
        for part in parts:
            if count and not len(part["embeddings"]):
                continue
            columns = {_SINGULAR[n]: _column(arrow, part[n]) for n in _COLUMNS if n in part}
            table = arrow.table(columns)
            if writer is None:
                note = {} if facts is None else {_FACTS: json.dumps(facts)}
                writer = parquet.ParquetWriter(file, table.schema.with_metadata(note or None))
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _column(arrow: Any, values: npt.NDArray[Any]) -> Any:
    """An array as a column of Arrow; rows of numbers have a fixed length."""
    if values.dtype.kind == "U":
        return arrow.array(values.tolist(), arrow.string())
    if values.ndim == 1:
        return arrow.array(values)
    flat = arrow.array(np.ascontiguousarray(values).reshape(-1))
    return arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _read_parquet(path: Path) -> tuple[Arrays, dict[str, Any]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    found: Arrays = {}
    for name, single in _SINGULAR.items():
        if single not in table.column_names:
            continue
        column = table[single].combine_chunks()
        if name == "embeddings":
            flat = column.values.to_numpy(zero_copy_only=False)
            found[name] = flat.reshape(-1, column.type.list_size)
        elif name == "scales":
            found[name] = column.to_numpy(zero_copy_only=False)
        else:
            found[name] = np.array(column.to_pylist(), str)
    note = (table.schema.metadata or {}).get(_FACTS.encode())
    return found, parse_json(note) if note else {}
