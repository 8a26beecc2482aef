"""Several files of faces as one set, as large sets come in shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface.data.source import FaceSource
from efquantface.errors import DataError


class JoinedSource(FaceSource):
    """The items of several sources in one folder, in order. Identities of one name are one person."""

    def __init__(self, root: Path, parts: Sequence[FaceSource]) -> None:
        """Join sources.

        Raises:
            DataError: some of them know identities and others none.
        """
        self.where, self.root, self.parts = str(root), root, list(parts)
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        known = [bool(part.identity_names) for part in parts]
        if any(known) and not all(known):
            with_, without = (self.parts[known.index(k)].where for k in (True, False))
            raise DataError(
                f"{root}: {with_} has identities and {without} has none; keep them in two folders"
            )
        names = sorted({name for part in parts for name in part.identity_names})
        numbers = {name: number for number, name in enumerate(names)}
        self.identity_names = names
        self.identities = np.concatenate([_numbered(part, numbers) for part in parts])

    def _place(self, index: int) -> tuple[FaceSource, int]:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part], index - int(self.starts[part])

    def name(self, index: int) -> str:
        part, place = self._place(index)
        return part.name(place)

    def encoded(self, index: int) -> bytes:
        part, place = self._place(index)
        return part.encoded(place)


def _numbered(part: FaceSource, numbers: dict[str, int]) -> npt.NDArray[np.int64]:
    """A part's identities (N,), numbered as in the whole set."""
    if not part.identity_names:
        return part.identities
    table = np.array([numbers[name] for name in part.identity_names], np.int64)
    return table[part.identities]
