"""A folder of shards is one set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from conftest import make_faces
from efquantface.data.faces import FolderSource, open_source
from efquantface.data.joined import JoinedSource
from efquantface.errors import DataError
from formats import png


def shard(path: Path, images: np.ndarray, labels: list[str] | None) -> None:
    columns: dict = {"image": [png(image) for image in images]}
    if labels is not None:
        columns["label"] = labels
    parquet.write_table(arrow.table(columns), path, row_group_size=3)


def test_people_go_by_their_names(tmp_path: Path) -> None:
    images = make_faces(5, 2).images
    shard(tmp_path / "b.parquet", images[:4], ["x", "x", "q", "q"])
    shard(tmp_path / "a.parquet", images[4:], ["q", "q", "a", "a", "x", "x"])
    source = open_source(tmp_path)
    assert isinstance(source, JoinedSource)
    assert len(source) == 10
    labels = [source.identity_names[i] for i in source.identities]
    assert labels == ["q", "q", "a", "a", "x", "x", "x", "x", "q", "q"]
    for index, image in enumerate([*images[4:], *images[:4]]):
        np.testing.assert_array_equal(source.read(index), image)
    assert [source.name(i) for i in (0, 5, 6, 9)] == [
        "a.parquet#0",
        "a.parquet#5",
        "b.parquet#0",
        "b.parquet#3",
    ]


def test_labelled_and_unlabelled_do_not_mix(tmp_path: Path) -> None:
    images = make_faces(2, 2).images
    shard(tmp_path / "a.parquet", images[:2], None)
    shard(tmp_path / "b.parquet", images[2:], None)
    assert set(open_source(tmp_path).identities) == {-1}
    shard(tmp_path / "b.parquet", images[2:], ["x", "y"])
    with pytest.raises(DataError, match=r"b\.parquet has identities and .*a\.parquet has none"):
        open_source(tmp_path)


def test_other_folders_stay_folders(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").write_bytes(png(make_faces(1, 1).images[0]))
    (tmp_path / "c.parquet").mkdir()
    assert isinstance(open_source(tmp_path), FolderSource)
