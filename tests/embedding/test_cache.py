"""Embeddings of earlier runs."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.embedding.cache import EmbeddingCache
from efquantface.embedding.embedder import Embedder


def test_second_time_nothing_is_computed(
    tmp_path: Path, network: nn.Module, contract: FaceContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFQ_CACHE", str(tmp_path))
    embedder = Embedder.open(network, contract=contract)
    faces = make_faces().images
    first = EmbeddingCache(embedder, "a").embed(faces)
    flipped = EmbeddingCache(embedder, "a").embed(faces, flip=True)
    np.testing.assert_array_equal(first, embedder.embed(faces))
    assert not np.array_equal(first, flipped)
    for path in tmp_path.rglob("*.npz"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    calls: list[int] = []
    real = Embedder.embed

    def counted(self: Embedder, *args: object, **kwargs: object) -> object:
        calls.append(1)
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "embed", counted)
    np.testing.assert_array_equal(EmbeddingCache(embedder, "a").embed(faces), first)
    np.testing.assert_array_equal(EmbeddingCache(embedder, "a").embed(faces, flip=True), flipped)
    assert not calls
    EmbeddingCache(embedder, "another network").embed(faces)
    EmbeddingCache(embedder, "a").embed(faces[1:])
    assert len(calls) == 2
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(b"damaged")
    np.testing.assert_array_equal(EmbeddingCache(embedder, "a").embed(faces), first)
    assert len(calls) == 3
