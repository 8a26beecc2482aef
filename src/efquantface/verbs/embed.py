"""Embeddings of faces as a file, for sources of any size, in bounded memory, resumable."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from efquantface.assets import file_sha256
from efquantface.console import Console
from efquantface.data.faces import crop_size, load, open_source
from efquantface.data.source import FaceSource
from efquantface.embedding.embedder import Embedder
from efquantface.errors import DataError, RuntimeMissingError
from efquantface.files import make_folder, whole, write_text
from efquantface.importers.contracts import resolve
from efquantface.rows import unit

_PART = 2048  # crops whose pixels and embeddings are in memory at a time
_FORMATS = (".npz", ".parquet")


@dataclass(frozen=True)
class _Plan:
    """What decides the content of the parts; parts of another plan are not gone on with."""

    model: str
    faces: str
    images: int
    names: str
    flip: bool
    normalize: bool
    preprocess: str
    resize: bool


def embed_faces(
    model: str | Path,
    faces: str | Path,
    output: str | Path,
    *,
    preprocess: str | None = None,
    size: tuple[int, int] | None = None,
    backend: str = "auto",
    flip: bool = False,
    normalize: bool = False,
    resize: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    follow_links: bool = False,
    force: bool = False,
    quiet: bool = False,
) -> tuple[int, int]:
    """Write embeddings, names and identities of all faces of a source.

    An ``.npz`` holds ``embeddings`` float32 (N,D), ``names`` (N,) and ``identities`` (N,) strings,
    the latter empty where the source has none; a ``.parquet`` has the same as columns. Parts are kept
    in ``OUTPUT.parts`` until all are there; called again, it goes on behind the last whole part.
    Embeddings are biometric data: the file is readable by its owner only.

    Args:
        model, preprocess, size, backend, device, threads: see :meth:`Embedder.open`.
        faces: whatever :func:`~efquantface.data.faces.open_source` opens.
        output: ``.npz`` or ``.parquet``.
        flip: add the mirror image's embedding.
        normalize: to length 1.
        resize: scale crops of another size.
        follow_links: see :func:`~efquantface.data.faces.open_source`.
        force: replace an existing file.

    Returns:
        (faces embedded, items that could not be read).

    Raises:
        DataError: the output exists or has another ending, or the source cannot be used.
        EfqError: the model cannot be used.

    Example:
        >>> embed_faces("student.onnx", "faces", "embeddings.npz", quiet=True)
        (48, 0)
        >>> with np.load("embeddings.npz") as stored:
        ...     stored["embeddings"].shape, str(stored["identities"][0])
        ((48, 16), 'person00')
    """
    output, console = Path(output), Console(quiet)
    if output.suffix not in _FORMATS:
        raise DataError(f"{output}: embeddings are written as {' or '.join(_FORMATS)}")
    if output.exists() and not force:
        raise DataError(f"{output}: exists; give another name or --force")
    if output.suffix == ".parquet":
        _pyarrow()
    source = open_source(Path(faces), follow_links)

    def opened(wanted: tuple[int, int] | None) -> Embedder:
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
        embedder = opened(found)
    console.log(f"{embedder.name} ({embedder.backend}): {embedder.contract.describe()}")
    for note in embedder.notes:
        console.log(f"  {note}")
    plan = _Plan(
        file_sha256(resolve(model)),
        str(Path(faces).resolve()),
        len(source),
        _names_digest(source),
        flip,
        normalize,
        preprocess or "",
        resize,
    )
    parts = _Parts(output.with_name(output.name + ".parts"), plan)
    done = parts.open()
    if done:
        console.log(f"going on behind the first {done:,} of {len(source):,} images")
    with console.bar("embedding") as advance:
        for start in range(done, len(source), _PART):
            index = np.arange(start, min(start + _PART, len(source)))
            part = _embed_part(embedder, source, index, plan)
            parts.keep(start, part)
            advance(int(index[-1]) + 1, len(source))
    count, skipped = parts.counts()
    for name, why in skipped[:5]:
        console.warn(f"skipped {name}: {why}")
    if not count:
        parts.remove()
        raise DataError(f"{faces}: none of {len(source)} images can be read")
    writer = _write_npz if output.suffix == ".npz" else _write_parquet
    with whole(output, private=True) as stream:
        writer(stream, parts, count)
    parts.remove()
    return count, len(skipped)


@dataclass(frozen=True)
class _Part:
    embeddings: npt.NDArray[np.float32]
    names: list[str]
    identities: list[str]
    skipped: list[tuple[str, str]]


def _embed_part(
    embedder: Embedder, source: FaceSource, index: npt.NDArray[np.int64], plan: _Plan
) -> _Part:
    """One part; without any whole image its arrays are empty."""
    try:
        faces = load(source, embedder.contract, index, resize=plan.resize)
    except DataError as error:
        if type(error) is not DataError:  # crops of another size concern all of them
            raise
        empty = np.empty((0, embedder.contract.embedding_size), np.float32)
        return _Part(empty, [], [], [(source.name(int(i)), str(error)) for i in index])
    rows = embedder.embed(faces.images, flip=plan.flip)
    if plan.normalize:
        rows = unit(rows, strict=False)
    people = [faces.identity_names[i] if i >= 0 else "" for i in faces.identities]
    return _Part(rows.astype(np.float32), list(faces.names), people, faces.skipped)


class _Parts:
    """Parts of the result in a folder, each whole or not there."""

    def __init__(self, folder: Path, plan: _Plan) -> None:
        self.folder, self.plan = folder, plan

    def open(self) -> int:
        """Make the folder, or find how many images its parts cover; parts of other runs go."""
        plan = self.folder / "plan.json"
        wanted = json.dumps(asdict(self.plan), indent=2)
        if not plan.is_file() or plan.read_text() != wanted:
            shutil.rmtree(self.folder, ignore_errors=True)
            make_folder(self.folder, private=True)
            write_text(plan, wanted)
        done = 0
        while (self.folder / f"{done:09d}.npz").is_file():
            done = min(done + _PART, self.plan.images)
        return done

    def keep(self, start: int, part: _Part) -> None:
        with whole(self.folder / f"{start:09d}.npz") as stream:
            np.savez(
                stream,
                embeddings=part.embeddings,
                names=np.array(part.names, np.str_),
                identities=np.array(part.identities, np.str_),
                skipped=np.array(part.skipped, np.str_).reshape(-1, 2),
            )

    def __iter__(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        for path in sorted(self.folder.glob("?????????.npz")):
            try:
                with np.load(path, allow_pickle=False) as stored:
                    part = dict(stored)
            except Exception as error:  # zipfile and NumPy raise many kinds
                raise DataError(
                    f"{path}: damaged ({error}); delete {self.folder} and begin anew"
                ) from None
            yield part

    def counts(self) -> tuple[int, list[tuple[str, str]]]:
        """Faces embedded, and what was skipped and why."""
        count, skipped = 0, list[tuple[str, str]]()
        for part in self:
            count += len(part["embeddings"])
            skipped += [(str(name), str(why)) for name, why in part["skipped"]]
        return count, skipped

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def _write_npz(file: BinaryIO, parts: _Parts, count: int) -> None:
    """An .npz written part by part: each array's header first, its rows as they come by."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in ("embeddings", "names", "identities"):
            dtype = max((part[name].dtype for part in parts), key=lambda d: d.itemsize)
            width = {part[name].shape[1:] for part in parts if len(part[name])}.pop()
            header = {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": (count, *width),
            }
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array_header_2_0(stream, header)
                for part in parts:
                    stream.write(np.ascontiguousarray(part[name].astype(dtype)).tobytes())


def _write_parquet(file: BinaryIO, parts: _Parts, count: int) -> None:
    """A row group a part."""
    arrow, parquet = _pyarrow()
    writer = None
    try:
        for part in parts:
            if not len(part["embeddings"]):
                continue
            rows = part["embeddings"]
            flat = arrow.array(rows.reshape(-1), arrow.float32())
            table = arrow.table(
                {
                    "name": part["names"].tolist(),
                    "identity": part["identities"].tolist(),
                    "embedding": arrow.FixedSizeListArray.from_arrays(flat, rows.shape[1]),
                }
            )
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise RuntimeMissingError(
            "parquet files need pyarrow: pip install 'efquantface[parquet]'; or write .npz"
        ) from None
    return pyarrow, pyarrow.parquet


def _names_digest(source: FaceSource) -> str:
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(source.name(index).encode() + b"\0")
    return digest.hexdigest()
