"""Shards: their outputs' names, whose they are, and what tells that one has changed."""

from __future__ import annotations

import doctest
import os
from pathlib import Path

import fsspec
import numpy as np
import pytest

from efquantface.data import shards as module
from efquantface.data.faces import FaceSet
from efquantface.data.shards import AddressList, my_share, opened, shards_of, version_of
from efquantface.errors import DataError, RecipeError
from formats import png


def test_outputs_are_called_as_their_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = shards_of(["b.tar", "./b.tar", "a.parquet", "s3://x/c.rec", "faces/"])
    assert {s.output for s in found} == {"b.tar.npz", "a.parquet", "c.rec.npz", "faces.npz"}
    assert len(found) == 4
    # one name in several folders: the folders that tell them apart are kept
    parts = ["y=1/m=1/p.parquet", "y=1/m=2/p.parquet", "y=2/m=1/p.parquet"]
    assert [s.output for s in shards_of(parts[::-1])] == parts
    assert [s.name for s in shards_of(["s3://b/x/p.tar", "s3://b/y/p.tar"])] == [
        "x/p.tar",
        "y/p.tar",
    ]
    with pytest.raises(DataError, match="one name in several file systems"):
        shards_of(["s3://b/p.tar", "gs://b/p.tar"])
    with pytest.raises(DataError, match="no shards"):
        shards_of([])


def test_every_shard_has_one_worker() -> None:
    shards = shards_of([f"{i}.tar" for i in range(11)])
    for count in (1, 2, 3, 11, 20):
        shares = [my_share(shards, f"{i + 1}/{count}") for i in range(count)]
        assert sorted(s.name for share in shares for s in share) == sorted(s.name for s in shards)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("share", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2", ""])
def test_other_shares(share: str) -> None:
    with pytest.raises(RecipeError, match=r"give I/N with I from 1 to N"):
        my_share([], share)


def test_digests_change_with_the_content(rec: Path, faces_dir: Path, tmp_path: Path) -> None:
    def digest(path: Path) -> str:
        with opened(shards_of([str(path)])[0]) as (source, found):
            assert len(source) == 48
        return found

    first = digest(rec)
    assert digest(rec) == first
    data = bytearray(rec.read_bytes())
    data[-5] ^= 1
    rec.write_bytes(bytes(data))
    assert digest(rec) != first
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(str(p) for p in sorted(faces_dir.rglob("*.png"))))
    before = digest(faces_dir), digest(listed)
    assert (digest(faces_dir), digest(listed)) == before
    one = next(faces_dir.rglob("*.png"))
    os.utime(one, ns=(1, 1))
    after = digest(faces_dir), digest(listed)
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_records_elsewhere(rec: Path, memory: fsspec.AbstractFileSystem, faces: FaceSet) -> None:
    for path in (rec, rec.with_suffix(".idx")):
        memory.put_file(str(path), f"/in/{path.name}")
    (shard,) = shards_of(["memory://in/*.rec"])
    with opened(shard) as (source, _):
        np.testing.assert_array_equal(source.read(5), faces.images[5])
        assert source.name(5) == "train.rec#6"
        assert source.where == shard.source
    assert version_of(shard)
    assert version_of(shards_of([str(rec)])[0]) == ""
    memory.pipe_file("/in/x.zip", b"")
    with (
        pytest.raises(DataError, match="file of these kinds"),
        opened(shards_of(["memory://in/x.zip"])[0]),
    ):
        pass


def test_lists_elsewhere(memory: fsspec.AbstractFileSystem, faces: FaceSet) -> None:
    for i in range(4):
        memory.pipe_file(f"/in/p{i // 2}/{i}.png", png(faces.images[i]))
    names = ["p0/0.png", "p0/1.png", "memory://in/p1/2.png"]
    memory.pipe_file("/in/list.txt", "\n".join(names).encode())
    (shard,) = shards_of(["memory://in/list.txt"])
    with opened(shard) as (source, digest):
        assert isinstance(source, AddressList)
        for i in range(3):
            np.testing.assert_array_equal(source.read(i), faces.images[i])
        assert [source.name(i) for i in range(3)] == names
        assert len(set(source.identities.tolist())) == 2
    memory.pipe_file("/in/list.txt", b"p0/0.png\tme\np1/3.png\tyou\n")
    with opened(shard) as (source, other):
        assert source.identity_names == ["me", "you"]
        assert other != digest
    for text, why in ((b"", "lists no items"), (b"a.tar#1", "names images"),
                      (b"file:///etc/a.png", "another file system")):  # fmt: skip
        memory.pipe_file("/in/list.txt", text)
        with pytest.raises(DataError, match=why), opened(shard):
            pass


def test_examples() -> None:
    assert doctest.testmod(module).failed == 0
