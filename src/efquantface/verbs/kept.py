"""Lists and clears the user's cache: embeddings of faces, and default parts."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from efquantface.assets import ALL, cache_dir

EMBEDDINGS = "embeddings"


@dataclass(frozen=True)
class Kept:
    """A part of the cache: its files, and their size in bytes."""

    name: str
    folder: Path
    files: tuple[Path, ...]
    size: int

    def describe(self) -> str:
        """One line of text."""
        what = "biometric data, private to you" if self.name == EMBEDDINGS else "a default part"
        count = f"{len(self.files):,} files, {self.size / 1e6:,.1f} MB"
        return f"{self.name}: {count} ({what}) in {self.folder}"


def list_cache() -> list[Kept]:
    """Every part of the cache that has files; empty where there is no cache."""
    found = []
    for name in (EMBEDDINGS, *ALL):
        folder = cache_dir() / name
        files = [path for path in sorted(folder.glob("*")) if path.is_file()]
        if files:
            sizes = sum(path.stat().st_size for path in files)
            found.append(Kept(name, folder, tuple(files), sizes))
    return found


def clear_cache(parts: bool = False) -> list[Kept]:
    """Remove embeddings, and with ``parts`` also the default parts. Returns what was removed.

    Only files in the package's own folders are removed.
    """
    removed = [kept for kept in list_cache() if parts or kept.name == EMBEDDINGS]
    for kept in removed:
        for path in kept.files:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the folder holds something else
            kept.folder.rmdir()
    return removed
