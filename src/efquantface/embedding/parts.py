"""Faces of a source to rows of a file, in parts, so that memory does not grow with the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
    model: str | Path,
    source: FaceSource,
    *,
    size: Shape,
    resize: bool,
    backend: str,
    preprocess: str | None,
    device: str,
    threads: int | None,
) -> Embedder:
    """Open a model; where neither file nor user gives the size of crops, take the source's.

    Args:
        source: of the crops.
        resize: whether crops are scaled to the model's own size instead.
        model, size, backend, preprocess, device, threads: of :meth:`Embedder.open`.
    """

    def opened(wanted: Shape) -> Embedder:
        return Embedder.open(
            model,
            backend=backend,
            preprocess=preprocess,
            size=wanted,
            device=device,
            threads=threads,
        )

    embedder = opened(size)
    if embedder.open_size and not resize and (found := crop_size(source)) is not None:
        return opened(found)
    return embedder


@dataclass(frozen=True)
class Way:
    """How faces become rows.

    Attributes:
        flip: add the mirror image's embedding.
        normalize: scale embeddings to length 1.
        resize: scale crops of another size.
        embedding: ``float32``, or ``int8`` for codes with one scale per vector.

    Raises:
        RecipeError: ``embedding`` is neither.
    """

    flip: bool = False
    normalize: bool = False
    resize: bool = False
    embedding: str = "float32"

    def __post_init__(self) -> None:
        check_embedding(self.embedding)

    def rows(self, embedder: Embedder, faces: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """The arrays of crops uint8 RGB (N,H,W,3), as :meth:`stored` gives them.

        Raises:
            ContractError: the crops have another size.
            EvaluationError: an embedding is not finite.
        """
        rows = embedder.embed(faces, flip=self.flip)
        if self.normalize:
            rows = unit(rows, strict=False)
        return self.stored(rows.astype(np.float32))

    def stored(self, rows: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        """Rows (N,D) as arrays: ``embeddings`` float32, or int8 with ``scales`` float32 (N,)."""
        if self.embedding == "float32":
            return {"embeddings": rows}
        codes, scales = encode(rows)
        return {"embeddings": codes, "scales": scales}


@dataclass(frozen=True)
class Part:
    """Rows of some faces, ready to be written.

    Attributes:
        arrays: ``embeddings`` (N,D), ``scales`` (N,) where they are codes, and the strings ``names``
        (N,)
            and ``identities`` (N,), which are empty where none are known.
        skipped: (name, reason) of images that could not be used.
    """

    arrays: dict[str, npt.NDArray[Any]]
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.arrays["embeddings"])


def embed_part(
    embedder: Embedder, source: FaceSource, index: npt.NDArray[np.int64], way: Way
) -> Part:
    """Embed the items at ``index``; without any whole image the arrays are empty.

    Raises:
        CropError: the crops have another size.
        EvaluationError: an embedding is not finite.
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
    """A part without rows; its arrays have the right dtypes and widths."""
    empty = way.stored(np.empty((0, embedder.contract.embedding_size), np.float32))
    return Part({**empty, "names": _texts([]), "identities": _texts([])}, skipped)


def check_embedding(name: str) -> str:
    """Check ``float32`` or ``int8``; returns it.

    Raises:
        RecipeError: it is another name.
    """
    if name not in EMBEDDINGS:
        close = did_you_mean(name, EMBEDDINGS)
        raise RecipeError(f"embedding {name!r}: {' and '.join(EMBEDDINGS)} are known{close}")
    return name


def _texts(texts: Sequence[str]) -> npt.NDArray[Any]:
    return np.array(list(texts), np.str_)
