"""Crops that stay in their files are the crops that loading gives, and take no memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.data.faces import load, open_source
from efquantface.data.large import stream
from efquantface.data.source import FaceSource
from efquantface.data.streaming import Seen, StreamedCrops
from efquantface.data.views import Taken, content_hash, mirrored
from efquantface.errors import CropError, DataError
from formats import png, write_rec

SIZE = 32
CONTRACT = FaceContract(height=SIZE, width=SIZE, embedding_size=16, template="unknown")


@pytest.fixture
def source(tmp_path: Path) -> FaceSource:
    """Eighty records, of which one is cut and one has another size."""
    faces = make_faces(20, 4)
    images = [png(image) for image in faces.images]
    images[3] = images[3][:-30]
    images[7] = png(make_faces(1, 1, size=16).images[0])
    write_rec(tmp_path / "f.rec", images, [int(i) for i in faces.identities])
    return open_source(tmp_path / "f.rec")


def test_both_ways_give_the_same_set(source: FaceSource) -> None:
    held = load(source, CONTRACT)
    read = stream(source, CONTRACT, np.arange(len(source)))
    crops = read.images
    assert isinstance(crops, StreamedCrops)
    assert crops.shape == held.images.shape == (78, SIZE, SIZE, 3)
    assert list(read.names) == held.names
    assert read.skipped == held.skipped
    assert len(held.skipped) == 2
    np.testing.assert_array_equal(read.identities, held.identities)
    index = np.random.default_rng(0).permutation(78)[:33]
    for at in (index, slice(60, 100), slice(None, None, 7), 5, np.int64(9)):
        np.testing.assert_array_equal(crops[at], held.images[at])
        np.testing.assert_array_equal(mirrored(crops)[at], mirrored(held.images)[at])
    part, wanted = read.subset(index), held.subset(index)
    assert isinstance(part.images, StreamedCrops)
    assert list(part.names) == list(wanted.names)
    assert part.names[3] == wanted.names[3]
    np.testing.assert_array_equal(part.images[2:9], wanted.images[2:9])
    for streamed, array in ((crops, held.images), (part.images, wanted.images)):
        assert content_hash(streamed).digest() == content_hash(array).digest()
    np.testing.assert_array_equal(np.stack(list(part.images)), wanted.images)


def test_other_processes_need_not_look(source: FaceSource) -> None:
    handed: list[bytes] = []

    def first(make):  # type: ignore[no-untyped-def]
        handed.append(make())
        return handed[0]

    one = stream(source, CONTRACT, np.arange(len(source)), once=first)
    other = stream(source, CONTRACT, np.arange(len(source)), once=lambda _: handed[0])
    assert list(one.names) == list(other.names)
    assert one.skipped == other.skipped
    assert Seen.unpacked(handed[0]).packed() == handed[0]
    assert content_hash(one.images).digest() == content_hash(other.images).digest()


def test_a_file_that_changes_is_an_error(source: FaceSource) -> None:
    read = stream(source, CONTRACT, np.arange(len(source)))
    source.read = lambda item: np.zeros((9, 9, 3), np.uint8)  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"f\.rec#.* has changed since the run began"):
        _ = read.images[0:2]


def test_photos_and_rubbish_are_refused_alike(tmp_path: Path) -> None:
    photos = make_faces(4, 4, size=64).images
    write_rec(tmp_path / "p.rec", [png(p) for p in photos], [0] * 16)
    with pytest.raises(CropError, match="most often 64x64"):
        stream(open_source(tmp_path / "p.rec"), CONTRACT, np.arange(16))
    found = stream(open_source(tmp_path / "p.rec"), CONTRACT, np.arange(16), resize=True)
    assert found.images[0:2].shape == (2, SIZE, SIZE, 3)
    write_rec(tmp_path / "r.rec", [b"rubbish"] * 16, [0] * 16)
    with pytest.raises(DataError, match="none of 16 items"):
        stream(open_source(tmp_path / "r.rec"), CONTRACT, np.arange(16))


def test_views_fetch_what_is_asked_for() -> None:
    rows = np.arange(20).reshape(10, 2)
    view = Taken(rows, np.array([7, 1, 3]), lambda found: found * 2)
    assert len(view) == 3
    np.testing.assert_array_equal(view[1:], [[4, 6], [12, 14]])
    np.testing.assert_array_equal(view[np.array([2, 0])], [[12, 14], [28, 30]])


def test_memory_does_not_grow_with_images(tmp_path: Path) -> None:
    """Five times the images, each at most a third of a crop.

    How many threads hold a decoded crop at the peak is chance, worth a megabyte or two.
    """
    size, peaks = 64, []
    contract = FaceContract(height=size, width=size, embedding_size=16, template="unknown")
    crops = make_faces(4, 4, size=size).images
    images = [png(crop) for crop in crops]
    for count in (320, 1600):
        path = tmp_path / f"{count}.rec"
        write_rec(path, images * (count // 16), list(np.arange(count // 16 * 16) // 4))
        tracemalloc.start()
        source = open_source(path)
        faces = stream(source, contract, np.arange(len(source)))
        order = np.random.default_rng(0).permutation(len(faces))
        for start in range(0, 320, 32):
            assert faces.images[order[start : start + 32]].shape == (32, size, size, 3)
        content_hash(faces.subset(np.sort(order[:64])).images)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / (1600 - 320) < crops[0].nbytes / 3
