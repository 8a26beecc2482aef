"""Embeddings of earlier runs."""

from __future__ import annotations

import random
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.embedding.cache import EmbeddingCache, read_cached, write_cached
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


def test_a_damaged_cache_is_no_cache(tmp_path: Path) -> None:
    path, rows = tmp_path / "r.npz", np.ones((3, 4), np.float32)
    write_cached(path, rows=rows)
    (found,) = read_cached(path, ("rows",), 3) or [None]
    np.testing.assert_array_equal(found, rows)
    whole, draw = path.read_bytes(), random.Random(0)
    others = [rows[:2], rows.astype(np.float64), rows[0], rows * np.nan, np.array("x")]
    for other in others:
        np.savez(path, rows=other)
        assert read_cached(path, ("rows",), 3) is None
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows", b"no array")
    assert read_cached(path, ("rows",), 3) is None
    for _ in range(200):
        data = bytearray(whole)
        data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
        again = read_cached(path, ("rows",), 3)
        assert again is None or again[0].shape == rows.shape
