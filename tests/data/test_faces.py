"""What photo folders really hold, alignment, and synthetic identities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efquantface import assets
from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.align import align_folder, check_alignment
from efquantface.data.faces import FEW, FaceSet, cap, load, load_faces, split
from efquantface.data.images import UnreadableImage, read_image, write_image
from efquantface.data.source import FolderSource, find_images
from efquantface.data.sources import load_source
from efquantface.data.synthetic import load_generator, synthetic_faces
from efquantface.data.template import TEMPLATES, similarity, template, warp
from efquantface.errors import AssetError, CropError, DataError, RunError

RAMP = np.arange(32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)


def test_every_kind_of_image_becomes_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(RAMP[..., 0])
    forms = {
        "grey.png": grey,
        "rgba.png": Image.fromarray(RAMP).convert("RGBA"),
        "cmyk.jpg": Image.fromarray(RAMP).convert("CMYK"),
        "palette.png": Image.fromarray(RAMP).convert("P"),
        "grey alpha.png": grey.convert("LA"),
        "bits16.png": Image.fromarray(RAMP[..., 0].astype(np.uint16) * 257),
        "Ünicode & space.png": Image.fromarray(RAMP),
        "pixel.png": Image.fromarray(RAMP[:1, :1]),
    }
    for name, image in forms.items():
        image.save(tmp_path / name)
        read = read_image(tmp_path / name)
        assert read.dtype == np.uint8
        assert read.shape == (image.size[1], image.size[0], 3)
    np.testing.assert_array_equal(read_image(tmp_path / "bits16.png")[..., 1], RAMP[..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), RAMP)


def test_exif_rotation(tmp_path: Path) -> None:
    tall = np.zeros((40, 20, 3), np.uint8)
    tall[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.rot90(tall).copy()).save(tmp_path / "r.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "r.png"), tall)


def test_damaged_images(tmp_path: Path) -> None:
    good = tmp_path / "good.jpg"
    write_image(good, RAMP)
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:200])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("cut", "text", "empty"):
        with pytest.raises(UnreadableImage):
            read_image(tmp_path / f"{name}.jpg")


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


# alignment ---------------------------------------------------------------------------------


def test_similarity_against_least_squares() -> None:
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 100, (5, 2))
    target = template("arcface112").array()
    matrix = similarity(source, target)
    # x' = a x - b y + tx, y' = b x + a y + ty is linear in its four parameters
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    np.testing.assert_allclose(matrix, [[a, -b, tx], [b, a, ty]], atol=1e-8)
    with pytest.raises(DataError, match="coincide"):
        similarity(np.ones((5, 2)), target)


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_warp_puts_landmarks_on_the_template(scale: float) -> None:
    wanted = TEMPLATES["arcface112"]
    points = wanted.array() * scale + 20
    image = np.zeros((int(150 * scale) + 60,) * 2 + (3,), np.uint8)
    yy, xx = np.mgrid[: image.shape[0], : image.shape[1]]
    eye = np.hypot(xx - points[0, 0], yy - points[0, 1]) < 4 * scale
    image[eye] = 255
    crop = warp(image, points, wanted)
    assert crop.shape == (112, 112, 3)
    found = np.argwhere(crop[..., 0] > 128).mean(axis=0)[::-1]
    assert np.abs(found - wanted.array()[0]).max() < 1.0


def test_align_lists_what_had_no_face(tmp_path: Path, faces_dir: Path) -> None:
    (faces_dir / "person00/bad.jpg").write_bytes(b"x")
    out = tmp_path / "crops"
    report = align_folder(faces_dir, out, "arcface112")
    assert report.written == 0
    assert len(report.none) == 48
    assert (out / "align_report.tsv").read_text().count("none\t") == 48
    assert "unreadable\tperson00/bad.jpg\tnot an image" in (out / "align_report.tsv").read_text()
    with pytest.raises(RunError, match="lies inside"):
        align_folder(faces_dir, faces_dir / "out", "arcface112")
    with pytest.raises(DataError, match="arcface112"):
        align_folder(faces_dir, out, "round")


def test_alignment_check_says_when_it_cannot(faces: FaceSet, contract: FaceContract) -> None:
    assert "names no template" in check_alignment(faces, contract)


# synthetic faces ---------------------------------------------------------------------------


def test_synthetic_identities() -> None:
    generator = load_generator(assets.fetch(assets.FACE_GENERATOR))
    contract = FaceContract(64, 64, 16, template="unknown")
    faces = synthetic_faces(generator, contract, identities=4, images_each=3, seed=1)
    again = synthetic_faces(generator, contract, identities=4, images_each=3, seed=1)
    np.testing.assert_array_equal(faces.images, again.images)
    other = synthetic_faces(generator, contract, identities=4, images_each=3, seed=2)
    assert (faces.images != other.images).any()
    flat = faces.images.reshape(12, -1).astype(float)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    similarity_matrix = flat @ flat.T
    same = faces.identities[:, None] == faces.identities[None]
    off = ~np.eye(12, dtype=bool)
    assert similarity_matrix[same & off].mean() > similarity_matrix[~same].mean() + 0.1


def test_foreign_generator_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.tar"
    path.write_bytes(b"PK not weights")
    with pytest.raises(AssetError, match=r"weights\.tar"):
        load_generator(path)


def test_assets_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFQ_CACHE", str(tmp_path))
    with pytest.raises(AssetError, match="efq models fetch"):
        assets.verify(assets.FACE_GENERATOR)
    path = tmp_path / "dcgan-faces" / "weights.tar"
    path.parent.mkdir()
    path.write_bytes(b"tampered")
    with pytest.raises(AssetError, match="sha256"):
        assets.verify(assets.FACE_GENERATOR)
    missing = assets.Asset("x", "no-such-package-efq==0.0.1", "0" * 64, "m", "0" * 64, "", "")
    with pytest.raises(AssetError, match="could not be fetched"):
        assets.fetch(missing)
