"""What a source holds, said and unpacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, load_faces, open_source
from efquantface.data.inspection import extract_source, inspect_source
from efquantface.errors import DataError
from efquantface.files import kept_below
from formats import png, write_rec


def test_inspect_and_extract(
    rec: Path, tmp_path: Path, faces: FaceSet, contract: FaceContract
) -> None:
    text = "\n".join(inspect_source(open_source(rec)).lines())
    assert "48 images" in text
    assert "12 identities of 4 to 4 images" in text
    assert "32x32 (48)" in text
    out = tmp_path / "out"
    assert extract_source(open_source(rec), out) == (48, 0)
    np.testing.assert_array_equal(load_faces(out, contract).images, faces.images)
    next(out.rglob("*.png")).unlink()
    assert extract_source(open_source(rec), out) == (1, 47)
    broken = make_faces(2, 2)
    write_rec(rec, [png(broken.images[0]), b"no image"], [0, 0])
    assert "1 of them cannot be read" in "\n".join(inspect_source(open_source(rec)).lines())


OUT = ["../../X", "/abs/X", "..\\X", "a/../../X", "C:X", "\0", "..", "", "...", "n/\x1b"]


@pytest.mark.parametrize("name", OUT)
def test_identities_never_lead_out_of_the_folder(name: str, tmp_path: Path, faces: FaceSet) -> None:
    write_rec(tmp_path / "train.rec", [png(faces.images[0])] * 3, [0, 1, 2])
    source = open_source(tmp_path / "train.rec")
    source.identity_names = [name, kept_below(name), "n1/good"]
    before = set(tmp_path.parent.rglob("*"))
    output = tmp_path / "deep" / "out"
    assert extract_source(source, output)[0] == 3
    made = set(tmp_path.parent.rglob("*")) - before
    assert all(output in (p, *p.parents) or p == output.parent for p in made)
    folders = {p.parent for p in output.rglob("*") if p.is_file()}
    assert len(folders) == 3  # nobody's images lie with another's
    assert output / "n1" / "good" in folders


def test_unknown_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"\.rec, \.bin, \.parquet"):
        open_source(tmp_path / "x.zip")
