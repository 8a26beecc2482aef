"""What photo folders really hold, and which of it is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, cap, load_faces, split
from efquantface.data.images import write_image
from efquantface.data.source import find_images
from efquantface.errors import CropError, DataError

RAMP = np.arange(32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)


def test_one_bad_image_is_skipped_and_listed(faces_dir: Path, contract: FaceContract) -> None:
    (faces_dir / "person00/broken.jpg").write_bytes(b"\xff\xd8\xff truncated")
    (faces_dir / "person01/notes.txt").write_text("not looked at")
    faces = load_faces(faces_dir, contract)
    assert len(faces) == 48
    assert [name for name, _ in faces.skipped] == ["person00/broken.jpg"]
    assert "1 files skipped" in faces.describe()


def test_one_crop_of_another_size_is_skipped_many_stop_the_run(
    faces_dir: Path, contract: FaceContract
) -> None:
    for i in range(60):
        write_image(faces_dir / f"person00/more{i}.png", RAMP)
    write_image(faces_dir / "person00/odd.png", RAMP[:1, :1])
    faces = load_faces(faces_dir, contract)
    assert faces.skipped == [("person00/odd.png", "is 1x1")]
    for i in range(10):
        write_image(faces_dir / f"person01/photo{i}.png", np.zeros((50, 40, 3), np.uint8))
    with pytest.raises(CropError, match=r"11 of 119 images \(9%\).*40x50.*efq align"):
        load_faces(faces_dir, contract)
    assert len(load_faces(faces_dir, contract, resize=True)) == 118


def test_empty_and_foreign_folders(tmp_path: Path, contract: FaceContract) -> None:
    with pytest.raises(DataError, match="holds no images"):
        load_faces(tmp_path, contract)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="holds no images"):
        load_faces(tmp_path, contract)
    (tmp_path / "a.jpg").write_text("x")
    with pytest.raises(DataError, match="none of 1 items is a whole image"):
        load_faces(tmp_path, contract)
    with pytest.raises(DataError, match="no such folder"):
        load_faces(tmp_path / "nowhere", contract)


def test_symlink_loops_end(faces_dir: Path) -> None:
    before = len(find_images(faces_dir))
    (faces_dir / "person00/loop").symlink_to(faces_dir, target_is_directory=True)
    (faces_dir / "self").symlink_to(faces_dir / "self")
    assert len(find_images(faces_dir)) == before


def test_flat_folder_has_no_identities(tmp_path: Path, contract: FaceContract) -> None:
    for i in range(5):
        write_image(tmp_path / f"{i}.png", RAMP)
    faces = load_faces(tmp_path, contract)
    assert not faces.has_identities
    assert (faces.identities == -1).all()


def test_split_holds_out_whole_people(faces: FaceSet) -> None:
    train, held = split(faces, 0.25, seed=1)
    assert len(train) + len(held) == len(faces)
    assert not set(faces.identities[train]) & set(faces.identities[held])
    assert len(np.unique(faces.identities[held])) == 3
    again, _ = split(faces, 0.25, seed=1)
    np.testing.assert_array_equal(train, again)
    with pytest.raises(DataError, match="too few"):
        split(faces.subset(np.arange(2)), 0.25, seed=1)


def test_cap_takes_whole_people(faces: FaceSet) -> None:
    capped = faces.subset(cap(faces.identities, 21, seed=0))
    assert len(capped) == 20
    _, sizes = np.unique(capped.identities, return_counts=True)
    assert (sizes == 4).all()
