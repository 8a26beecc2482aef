"""The cache is listed and cleared; what is not ours stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from efquantface.embedding.cache import write_cached
from efquantface.verbs.kept import clear_cache, list_cache
from program import efq


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EFQ_CACHE", str(folder))
    write_cached(folder / "embeddings" / "a.npz", rows=np.zeros((2, 3), np.float32))
    (folder / "dlib-resnet").mkdir()
    (folder / "dlib-resnet" / "x.dat").write_bytes(bytes(1000))
    (folder / "mine").mkdir()
    (folder / "mine" / "x").write_text("1")
    return folder


def test_list_and_clear(cache: Path) -> None:
    assert [(kept.name, len(kept.files)) for kept in list_cache()] == [
        ("embeddings", 1),
        ("dlib-resnet", 1),
    ]
    assert [kept.name for kept in clear_cache()] == ["embeddings"]
    assert not (cache / "embeddings").exists()
    assert (cache / "dlib-resnet" / "x.dat").is_file()
    assert [kept.name for kept in clear_cache(parts=True)] == ["dlib-resnet"]
    assert [path.name for path in cache.iterdir()] == ["mine"]


def test_the_verbs(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert efq("cache", "list") == 0
    assert f"embeddings: 1 files, 0.0 MB (biometric data, private to you) in {cache}" in (
        capsys.readouterr().out
    )
    assert efq("cache", "clear", "--all") == 0
    assert "removed dlib-resnet" in capsys.readouterr().out
    assert efq("cache", "clear") == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert efq("cache", "list") == 0
    assert "nothing is cached" in capsys.readouterr().out


def test_no_cache_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFQ_CACHE", "/proc/nowhere")
    assert list_cache() == []
    assert clear_cache() == []
