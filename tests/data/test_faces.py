"""What photo folders really hold, and which of it is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.faces import FEW, FaceSet, cap, load, load_faces, split
from efquantface.data.images import write_image
from efquantface.data.source import FolderSource, find_images
from efquantface.data.sources import load_source
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


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("limit", [1, 3, 40, 90, 200, 299])
def test_cap_spreads_over_people(limit: int, seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 20, 40)
    identities = np.random.default_rng(seed).permutation(np.repeat(np.arange(40), sizes))
    limit = min(limit, len(identities) - 1)
    index = cap(identities, limit, seed)
    assert (np.diff(index) > 0).all()
    assert limit - FEW < len(index) <= limit
    np.testing.assert_array_equal(index, cap(identities, limit, seed))
    people, given = np.unique(identities[index], return_counts=True)
    # nobody waits while others get a second image more: who has less gave all there are
    fewest = given.max() - 1
    assert all(n >= fewest or n == sizes[p] for p, n in zip(people, given, strict=True))
    # as many people as can have a few images each: one more would not have fitted
    few = np.minimum(sizes, FEW)
    assert len(people) == 40 or few[people].sum() + FEW > limit or limit < FEW


def test_cap_takes_everybody_where_few_images_each_fit() -> None:
    identities = np.repeat(np.arange(197), 71)
    _, given = np.unique(identities[cap(identities, 1229, 0)], return_counts=True)
    assert len(given) == 197
    assert set(given) == {6, 7}
    assert given.sum() == 1229


def test_the_cap_says_how_it_was_spread(
    faces: FaceSet, faces_dir: Path, contract: FaceContract, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in (faces, faces_dir):
        found = load_source(source, contract, resize=False, seed=0, limit=27, console=Console())
        assert len(found) <= 27
        assert found.people == 6
        out = " ".join(capsys.readouterr().out.split())
        assert (
            "capped to 24 of 48 images (--max-images): spread over 6 of 12 identities, 4 to 4"
            in out
        )
    bare = load_source(
        faces.unlabelled(), contract, resize=False, seed=0, limit=27, console=Console()
    )
    assert len(bare) == 27
    assert "27 of 48 images (--max-images): drawn at random" in capsys.readouterr().out
    whole = load_source(faces, contract, resize=False, seed=0, limit=48, console=Console())
    assert whole is faces
    assert "capped" not in capsys.readouterr().out


def test_cap_of_images_without_identities() -> None:
    index = cap(np.full(100, -1), 30, seed=0)
    assert len(index) == len(set(index)) == 30
    assert list(index) != list(range(30))
    assert set(index) != set(cap(np.full(100, -1), 30, seed=1))


def test_photos_instead_of_crops_are_refused_after_a_look(contract: FaceContract) -> None:
    class Photos(FolderSource):
        def __init__(self) -> None:
            super().__init__(Path("photos"), [f"p{i}.jpg" for i in range(5000)])
            self.read_count = 0

        def read(self, index: int) -> np.ndarray:
            self.read_count += 1
            return np.zeros((90, 120, 3), np.uint8)

    photos = Photos()
    with pytest.raises(CropError, match="120x90"):
        load(photos, contract)
    assert photos.read_count < 200
