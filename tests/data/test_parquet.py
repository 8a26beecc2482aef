"""Face images in parquet files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, load_faces, open_source
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
