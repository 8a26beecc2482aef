"""Synthetic identities: alike within, different between; the same for a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from efquantface import assets
from efquantface.contract import FaceContract
from efquantface.data.synthetic import load_generator, synthetic_faces
from efquantface.errors import AssetError


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
