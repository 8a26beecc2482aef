"""List files: items of any source, and lines that lead nowhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, load_faces, open_source
from efquantface.data.listing import read_list, write_list
from efquantface.errors import DataError


def test_lists_name_items_of_any_source(
    rec: Path, faces_dir: Path, faces: FaceSet, contract: FaceContract
) -> None:
    path = rec.parent / "chosen.txt"
    path.write_text("# a comment\ntrain.rec#5\nfaces/person00/person00_0001.png\ntrain.rec#9\n")
    loaded = load_faces(path, contract)
    np.testing.assert_array_equal(loaded.images, faces.images[[4, 0, 8]])
    assert len(np.unique(loaded.identities)) == 3
    write_list(path, open_source(faces_dir), [7, 2], "two")
    again = load_faces(path, contract)
    np.testing.assert_array_equal(again.images, faces.images[[7, 2]])
    assert [again.identity_names[i] for i in again.identities] == ["person01", "person00"]
    write_list(path, open_source(rec), range(5, 9), "of records")
    np.testing.assert_array_equal(load_faces(path, contract).images, faces.images[5:9])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.rec#999\n", "no image with key 999"),
        ("train.rec#x\n", "no record number"),
        ("gone.png\n", "'gone.png' is not an image"),
        ("gone.rec#1\n", "no such file"),
        ("# nothing\n", "lists no items"),
        ("train.rec#1\ta\ntrain.rec#2\n", "some items have an identity"),
    ],
)
def test_lists_that_lead_nowhere(rec: Path, text: str, message: str) -> None:
    path = rec.parent / "list.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_list(path)
