"""Recognizes files that stand in for a failed download: a pointer of Git LFS, a web page."""

from __future__ import annotations

from pathlib import Path

_LOOKED_AT = 1024
_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<head", b'<?xml version="1.0" encoding="utf-8"?><error')


def stand_in(path: Path) -> str | None:
    """What a stand-in is, and how to get the file, in words; None for other files.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_LOOKED_AT)
    if head.startswith(_POINTER):
        return (
            "is a pointer of Git LFS, not the file itself; in its repository run "
            f"`git lfs pull --include {path.name}`, or download the file from the web page"
        )
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES) or (text.startswith(b"<!--") and b"<html" in text):
        return (
            "is a web page, not the file (an error, a quota or a page that asks first); open the "
            "address in a browser and download it from there"
        )
    return None
