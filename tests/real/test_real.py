"""Real networks and real faces, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from conftest import SHARED
from efquantface import Embedder, compress
from efquantface.contract import FaceContract
from efquantface.data.align import align_folder, check_alignment
from efquantface.data.faces import load_faces
from efquantface.errors import CropError, UnsupportedOperatorError
from efquantface.loading import load_model

pytestmark = pytest.mark.real
WEIGHTS, DATA = SHARED / "weights", SHARED / "data"
CONTRACT = FaceContract(112, 112, 128)


def some_faces(folder: str = "faces6k", count: int = 16) -> np.ndarray:
    return load_faces(DATA / folder, CONTRACT, limit=count).images


@pytest.mark.parametrize("name", ["y1", "mobileface2", "foamliu_mobilefacenet"])
def test_imported_network_equals_its_file(name: str) -> None:
    path = WEIGHTS / f"{name}.onnx"
    preprocess = "imagenet" if name.startswith("foamliu") else None
    faces = some_faces()
    own = Embedder.open(path, backend="torch", preprocess=preprocess).embed(faces)
    theirs = Embedder.open(path, preprocess=preprocess).embed(faces)  # a batch fixed at 1 included
    assert np.abs(own - theirs).max() < 1e-4
    assert load_model(path).contract.is_raw_pixels == (not name.startswith("foamliu"))


def test_unsupported_network_is_named_but_runs() -> None:
    path = WEIGHTS / "edgeface_xs.onnx"
    with pytest.raises(UnsupportedOperatorError, match="LayerNormalization"):
        load_model(path)
    assert Embedder.open(path).embed(some_faces(count=2)).shape == (2, 512)


def test_photos_become_aligned_crops(tmp_path: Path) -> None:
    with pytest.raises(CropError, match="efq align"):
        load_faces(DATA / "raw", CONTRACT)
    report = align_folder(DATA / "raw", tmp_path / "crops", "arcface112")
    assert report.written >= 75
    again = align_folder(DATA / "raw", tmp_path / "crops", "arcface112")
    assert (again.written, again.existing) == (0, report.written)
    crops = load_faces(tmp_path / "crops", CONTRACT)
    assert "alignment checked" in check_alignment(crops, CONTRACT)
    squeezed = load_faces(DATA / "raw", CONTRACT, resize=True)
    with pytest.raises(CropError, match="not aligned"):
        check_alignment(squeezed, CONTRACT)


def test_y1_untrained(tmp_path: Path) -> None:
    source = tmp_path / "faces"
    source.mkdir()
    people = sorted((DATA / "faces6k").iterdir())[:40]
    for person in people:
        (source / person.name).symlink_to(person, target_is_directory=True)
    done = compress(
        str(WEIGHTS / "y1.onnx"), source, tmp_path / "run",
        epochs=0, cache=False, benchmark=False, quiet=True,
    )  # fmt: skip
    assert done.parity.integer_convolutions == done.parity.convolutions == 82
    assert done.results.sizes.ratio <= 0.30
    assert done.results.protocols[0].metric("cosine to teacher").teacher > 0.993
    names = [o.name for o in ort.InferenceSession(str(done.run.onnx)).get_outputs()]
    assert names == ["embedding"]
