"""Files appear whole or not at all, and what cannot be written is said."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from efquantface import files
from efquantface.errors import WriteError
from efquantface.files import (
    append_text,
    move,
    remove,
    temporary_folder,
    whole,
    write_text,
    writing,
)
from failing_disk import FailingDisk


def test_whole_replaces_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with whole(path) as stream:
        stream.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "new")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "new"


def test_private_and_shared(tmp_path: Path) -> None:
    with whole(tmp_path / "a", private=True, shared=True) as one:
        with whole(tmp_path / "a", private=True) as other:
            other.write(b"2")
        one.write(b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_libraries_write_to_the_stream(tmp_path: Path) -> None:
    rows = np.arange(12.0).reshape(3, 4)
    with whole(tmp_path / "a.npz") as stream:
        np.savez(stream, rows=rows)
    with np.load(tmp_path / "a.npz") as found:
        assert np.array_equal(found["rows"], rows)


def test_broken_writing_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt):
        _stopped_halfway(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _stopped_halfway(path: Path) -> None:
    with whole(path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("at", range(4))
def test_every_operation_may_fail(
    at: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    disk = FailingDisk(at, number)
    monkeypatch.setattr(files, "disk", disk)
    said = "the disk is full" if number in files._FULL else "cannot be written"
    with pytest.raises(WriteError, match=rf"a\.txt: {said}"):
        write_text(path, "new")
    assert [kind for kind, _ in disk.done] == ["folder", "open", "write", "replace"][: at + 1]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("at", [None, 0, 1])
def test_a_folder_replaces_a_folder_whole(
    at: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    write_text(new / "a", "new")
    write_text(old / "b" / "c", "old")
    if at is None:
        move(new, old)
        assert [p.name for p in old.iterdir()] == ["a"]
        assert list(tmp_path.iterdir()) == [old]
        return
    monkeypatch.setattr(files, "disk", FailingDisk(at))
    with pytest.raises(WriteError, match="old: the disk is full"):
        move(new, old)
    assert (old / "b" / "c").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "old"]


def test_a_link_to_a_folder_is_replaced_and_its_folder_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a", "new")
    write_text(tmp_path / "there" / "b", "old")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    move(tmp_path / "new", tmp_path / "link")
    assert (tmp_path / "link" / "a").read_text() == "new"
    assert (tmp_path / "there" / "b").read_text() == "old"


def test_remove(tmp_path: Path) -> None:
    write_text(tmp_path / "folder" / "a", "x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    assert (tmp_path / "folder" / "a").is_file()
    remove(tmp_path / "folder")
    remove(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_is_really_full() -> None:
    with pytest.raises(WriteError, match="/dev/full: the disk is full"):
        append_text(Path("/dev/full"), "x")


def test_a_library_that_rewords_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save() -> None:
        with writing(tmp_path / "a"):
            raise RuntimeError("could not write")

    with pytest.raises(RuntimeError, match="could not write"):
        save()
    monkeypatch.setattr(files, "free_bytes", lambda _: 1000)
    with pytest.raises(WriteError, match="the disk is full"):
        save()


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_no_place_for_temporary_files(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "tmp"
    if kind == "file":
        place.write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    with pytest.raises(WriteError, match="TMPDIR"), temporary_folder():
        pass


def test_a_temporary_folder_goes(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        write_text(folder / "x", "1")
        assert folder.parent == tmp_path
    assert not list(tmp_path.iterdir())


def test_text_that_is_no_unicode_is_logged(tmp_path: Path) -> None:
    append_text(tmp_path / "log", "a\udcff\n")
    assert (tmp_path / "log").read_text() == "a\\udcff\n"


def partial_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    counted = 0

    class Slow(files.Disk):
        def write(self, stream, data):  # type: ignore[no-untyped-def]
            nonlocal counted
            counted += 1
            return stream.write(data[:3])

    monkeypatch.setattr(files, "disk", Slow())
    return lambda: counted


def test_all_is_written_where_the_system_takes_a_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = partial_write(monkeypatch)
    write_text(tmp_path / "a", "0123456789")
    assert (tmp_path / "a").read_text() == "0123456789"
    assert count() == 4
