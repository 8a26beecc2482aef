"""Faces of a source to rows of a file, a part at a time: memory does not grow with the source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.codes import EMBEDDINGS, encode
from efquantface.data.faces import crop_size, load
from efquantface.data.source import FaceSource
from efquantface.embedding.embedder import Embedder
from efquantface.errors import DataError, RecipeError, did_you_mean
from efquantface.rows import unit

SIZE = 2048  # crops whose pixels are in memory at a time
Shape = tuple[int, int] | None  # height and width, where they are known


def fitted(
    opened: Callable[[Shape], Embedder], size: Shape, source: FaceSource, resize: bool
) -> Embedder:
    """A model, opened anew for a source's crops where neither file nor user says their size.

    Args:
        opened: opens it for crops of a size.
        size: as the user says it.
        source: of the crops.
        resize: crops are scaled to the model's own size instead.
    """
    embedder = opened(size)
    if embedder.open_size and not resize and (found := crop_size(source)) is not None:
        return opened(found)
    return embedder


@dataclass(frozen=True)
class Way:
    """How faces become rows.

    Attributes:
        flip: add the mirror image's embedding.
        normalize: to length 1.
        resize: scale crops of another size.
        embedding: ``float32``, or ``int8`` for codes with a scale a vector.

    Raises:
        RecipeError: another kind of embedding.
    """

    flip: bool = False
    normalize: bool = False
    resize: bool = False
    embedding: str = "float32"

    def __post_init__(self) -> None:
        check_embedding(self.embedding)

    def rows(self, embedder: Embedder, faces: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """The arrays ``embeddings`` (N,D), and with codes ``scales`` (N,), of crops (N,H,W,3)."""
        rows = embedder.embed(faces, flip=self.flip)
        if self.normalize:
            rows = unit(rows, strict=False)
        return self.stored(rows.astype(np.float32))

    def stored(self, rows: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        """Rows (N,D) as they are written."""
        if self.embedding == "float32":
            return {"embeddings": rows}
        codes, scales = encode(rows)
        return {"embeddings": codes, "scales": scales}


@dataclass(frozen=True)
class Part:
    """Rows of some faces, ready to be written.

    Attributes:
        arrays: ``embeddings`` (N,D), ``scales`` (N,) where they are codes, ``names`` (N,) and
            ``identities`` (N,) strings, the latter empty where there are none.
        skipped: what could not be used, with the reason.
    """

    arrays: dict[str, npt.NDArray[Any]]
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.arrays["embeddings"])


def embed_part(
    embedder: Embedder, source: FaceSource, index: npt.NDArray[np.int64], way: Way
) -> Part:
    """The items at ``index``; without any whole image its arrays are empty.

    Raises:
        CropError: crops of another size.
        EvaluationError: an embedding that is not finite.
    """
    try:
        faces = load(source, embedder.contract, index, resize=way.resize)
    except DataError as error:
        if type(error) is not DataError:  # crops of another size concern all of them
            raise
        return nothing(embedder, way, [(source.name(int(i)), str(error)) for i in index])
    people = [faces.identity_names[i] if i >= 0 else "" for i in faces.identities]
    arrays = way.rows(embedder, faces.images)
    named = {"names": _texts(faces.names), "identities": _texts(people)}
    return Part({**arrays, **named}, faces.skipped)


def nothing(embedder: Embedder, way: Way, skipped: list[tuple[str, str]]) -> Part:
    """No rows, of the right kinds."""
    empty = way.stored(np.empty((0, embedder.contract.embedding_size), np.float32))
    return Part({**empty, "names": _texts([]), "identities": _texts([])}, skipped)


def check_embedding(name: str) -> str:
    """The name of a kind of embedding.

    Raises:
        RecipeError: there is no such kind.
    """
    if name not in EMBEDDINGS:
        close = did_you_mean(name, EMBEDDINGS)
        raise RecipeError(f"embedding {name!r}: {' and '.join(EMBEDDINGS)} are known{close}")
    return name


def _texts(texts: Sequence[str]) -> npt.NDArray[Any]:
    return np.array(list(texts), np.str_)
