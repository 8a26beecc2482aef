"""Face images in parquet files."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, load_faces, open_source
from efquantface.data.parquet import ParquetSource
from efquantface.errors import DataError
from formats import png


def test_parquet(tmp_path: Path, faces: FaceSet, contract: FaceContract) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    images = [png(i) for i in faces.images]
    path = tmp_path / "f.parquet"
    for column in (images, [{"bytes": i, "path": None} for i in images]):
        table = arrow.table({"image": column, "label": [int(i) for i in faces.identities]})
        parquet.write_table(table, path, row_group_size=7)
        loaded = load_faces(path, contract)
        np.testing.assert_array_equal(loaded.images, faces.images)
        np.testing.assert_array_equal(loaded.identities, faces.identities)
    parquet.write_table(arrow.table({"x": [1]}), path)
    with pytest.raises(DataError, match="no column named"):
        open_source(path)
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match="not a whole parquet"):
        open_source(path)


def test_mutated_files_are_rows_or_errors(tmp_path: Path, faces: FaceSet) -> None:
    """Bytes changed and cut: every row is read, or said to be damaged."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path, draw = tmp_path / "f.parquet", random.Random(0)
    images = [png(image) for image in faces.images[:6]]
    table = pyarrow.table({"image": images, "label": ["a", "b", "c"] * 2})
    parquet.write_table(table, path, row_group_size=2)
    whole, right, refused = path.read_bytes(), 0, 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
        try:
            source = ParquetSource(path)
            for index in range(len(source)):
                source.encoded(index)
            right += 1
        except DataError:
            refused += 1
    assert right + refused == 300
    assert min(right, refused) > 20
