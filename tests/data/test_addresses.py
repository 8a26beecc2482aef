"""Files elsewhere, in fsspec's file system in memory."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

import fsspec
import pytest

from efquantface.data import addresses as module
from efquantface.data.addresses import exists, expand, fetch, is_address, read, sending, version
from efquantface.errors import DataError, MissingPackageError, WriteError


def test_there_and_back(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    with sending("memory://out/a/b.bin") as path:
        path.write_bytes(b"faces")
        assert not exists("memory://out/a/b.bin")
    assert memory.find("/out") == ["/out/a/b.bin"]
    assert read("memory://out/a/b.bin") == b"faces"
    copy = fetch("memory://out/a/b.bin", tmp_path)
    assert (copy, copy.read_bytes()) == (tmp_path / "b.bin", b"faces")
    with sending("memory://out/a/b.bin") as path:
        path.write_bytes(b"other")
    assert read("memory://out/a/b.bin") == b"other"


def test_nothing_half_sent(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:

    def half_sent() -> None:
        with sending("memory://out/a") as path:
            path.write_bytes(b"half")
            raise KeyboardInterrupt

    def sent() -> None:
        with sending("memory://out/a") as path:
            path.write_bytes(b"half")

    with pytest.raises(KeyboardInterrupt):
        half_sent()
    assert not exists("memory://out/a")

    def full(*_: object, **__: object) -> None:
        raise OSError("quota")

    monkeypatch.setattr(type(memory), "mv", full)
    with pytest.raises(WriteError, match=r"memory://out/a: cannot be written \(quota\)"):
        sent()
    assert memory.find("/out") == []


def test_versions_change_with_the_file(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe_file("/in/a", b"1234")
    first = version("memory://in/a")
    assert "size 4" in first
    memory.pipe_file("/in/a", b"4321")
    assert version("memory://in/a") != first
    with pytest.raises(DataError, match="memory://in/b: no such file"):
        version("memory://in/b")


def test_patterns(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.tar", "a.tar", "c.rec"):
        memory.pipe_file(f"/in/{name}", b"")
        (tmp_path / name).touch()
    (tmp_path / "odd[1].tar").touch()
    monkeypatch.chdir(tmp_path)
    assert expand(["memory://in/*.tar"]) == ["memory:///in/a.tar", "memory:///in/b.tar"]
    assert expand(["z", "?.tar", "odd[1].tar"]) == ["z", "a.tar", "b.tar", "odd[1].tar"]
    for pattern in ("memory://in/*.zip", "*.zip"):
        with pytest.raises(DataError, match="no file fits"):
            expand([pattern])


def test_errors_name_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: fsspec.AbstractFileSystem
) -> None:
    with pytest.raises(DataError, match="memory://in/none: no such file"):
        fetch("memory://in/none", tmp_path)
    with pytest.raises(DataError, match="nowhere://a: cannot be read"):
        read("nowhere://a")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingPackageError, match=r"s3://b/a: an address needs fsspec.*gallery"):
        read("s3://b/a")
    assert is_address("s3://b/a")
    assert not is_address("C:/b/a")


def test_examples() -> None:
    assert doctest.testmod(module).failed == 0
