"""Pointers and web pages in place of files are named for what they are, wherever a file is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from efquantface.data.faces import open_source
from efquantface.data.images import UnreadableImage, read_image
from efquantface.downloads import stand_in
from efquantface.errors import DataError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 174383860\n"
PAGES = (
    b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>",
    b"\xef\xbb\xbf\n  <HTML>quota exceeded",
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code>',
)


@pytest.mark.parametrize("page", PAGES)
def test_pages_and_pointers(tmp_path: Path, page: bytes) -> None:
    path = tmp_path / "w600k_r50.onnx"
    path.write_bytes(page)
    assert "web page" in (stand_in(path) or "")
    path.write_bytes(POINTER)
    assert "git lfs pull --include w600k_r50.onnx" in (stand_in(path) or "")


@pytest.mark.parametrize("data", [b"", b"\x08\x07\x12\x07pytorch", b'<?xml version="1.0"?><net>'])
def test_files_are_left_alone(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.xml"
    path.write_bytes(data)
    assert stand_in(path) is None


@pytest.mark.parametrize("name", ["train.rec", "lfw.bin", "faces.parquet"])
def test_faces(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(DataError, match=f"{name}: is a pointer of Git LFS"):
        open_source(tmp_path / name)
    (tmp_path / name).write_bytes(PAGES[0])
    with pytest.raises(DataError, match=f"{name}: is a web page"):
        open_source(tmp_path / name)


def test_photos(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(POINTER)
    with pytest.raises(UnreadableImage, match="is a pointer of Git LFS"):
        read_image(tmp_path / "a.jpg")
