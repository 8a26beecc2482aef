"""``efq embed`` of one source: a file of embeddings, made in bounded memory, resumable."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from efquantface.assets import file_sha256
from efquantface.console import Console
from efquantface.data.faces import open_source
from efquantface.data.source import FaceSource
from efquantface.embedding.parts import SIZE, Part, Way, embed_part, fitted
from efquantface.embedding.stored import FORMATS, Arrays, write
from efquantface.errors import DataError
from efquantface.extras import wanted_for
from efquantface.files import make_folder, whole, write_text
from efquantface.importers.contracts import resolve

_PART = SIZE


@dataclass(frozen=True)
class _Plan:
    """What decides the content of the parts; parts of another plan are removed."""

    model: str
    faces: str
    images: int
    names: str
    preprocess: str
    way: Way


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
    embedding: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    follow_links: bool = False,
    force: bool = False,
    quiet: bool = False,
) -> tuple[int, int]:
    """Write embeddings, names and identities of all faces of a source.

    An ``.npz`` holds ``embeddings`` float32 (N,D), ``names`` (N,) and ``identities`` (N,). The last two
    are strings; identities are empty where the source has none. A ``.parquet`` has the same columns.
    With int8, ``embeddings`` are int8 codes (N,D), and ``scales`` float32 (N,) has a scale per row.

    Parts are kept in ``OUTPUT.parts`` until all are done. After a stop, the same call goes on after the
    last whole part. Embeddings are biometric data: only its owner can read the file.

    Args:
        model, preprocess, size, backend, device, threads: see :meth:`Embedder.open`.
        faces: whatever :func:`~efquantface.data.faces.open_source` opens.
        output: ``.npz`` or ``.parquet``.
        flip: add the mirror image's embedding.
        normalize: scale embeddings to length 1.
        resize: scale crops of another size.
        embedding: ``float32``, or ``int8``, which takes a quarter of the bytes.
        follow_links: see :func:`~efquantface.data.faces.open_source`.
        force: replace an existing file.
        quiet: print nothing.

    Returns:
        (faces embedded, items that could not be read).

    Raises:
        DataError: the output exists or has another ending; the source cannot be used, or none of its
            images can be read.
        EfqError: the model cannot be used.

    Example:
        >>> embed_faces("student.onnx", "faces", "embeddings.npz", quiet=True)
        (48, 0)
        >>> with np.load("embeddings.npz") as stored:
        ...     stored["embeddings"].shape, str(stored["identities"][0])
        ((48, 16), 'person00')
    """
    output, console = Path(output), Console(quiet)
    way = Way(flip, normalize, resize, embedding)
    if output.suffix not in FORMATS:
        raise DataError(f"{output}: embeddings are written as {' or '.join(FORMATS)}")
    if output.exists() and not force:
        raise DataError(f"{output}: exists; give another name or --force")
    if output.suffix == ".parquet":
        with wanted_for(f"{output}: parquet"):
            import pyarrow.parquet  # noqa: F401 - before anything is embedded
    source = open_source(Path(faces), follow_links)
    embedder = fitted(
        model,
        source,
        size=size,
        resize=resize,
        backend=backend,
        preprocess=preprocess,
        device=device,
        threads=threads,
    )
    console.log(f"{embedder.name} ({embedder.backend}): {embedder.contract.describe()}")
    for note in embedder.notes:
        console.log(f"  {note}")
    plan = _Plan(
        file_sha256(resolve(model)),
        str(Path(faces).resolve()),
        len(source),
        _names_digest(source),
        preprocess or "",
        way,
    )
    parts = _Parts(output.with_name(output.name + ".parts"), plan)
    done = parts.open()
    if done:
        console.log(f"going on after the first {done:,} of {len(source):,} images")
    with console.bar("embedding") as advance:
        for start in range(done, len(source), _PART):
            index = np.arange(start, min(start + _PART, len(source)))
            parts.keep(start, embed_part(embedder, source, index, way))
            advance(int(index[-1]) + 1, len(source))
    count, skipped = parts.counts()
    for name, why in skipped[:5]:
        console.warn(f"skipped {name}: {why}")
    if not count:
        parts.remove()
        raise DataError(f"{faces}: none of {len(source)} images can be read")
    with whole(output, private=True) as stream:
        write(output.suffix, stream, parts, count)
    parts.remove()
    return count, len(skipped)


class _Parts:
    """Parts of the result in a folder, each whole or not there."""

    def __init__(self, folder: Path, plan: _Plan) -> None:
        self.folder, self.plan = folder, plan

    def open(self) -> int:
        """Make the folder, without parts of another plan; returns how many images its parts cover."""
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

    def keep(self, start: int, part: Part) -> None:
        with whole(self.folder / f"{start:09d}.npz") as stream:
            skipped = np.array(part.skipped, np.str_).reshape(-1, 2)
            np.savez(stream, skipped=skipped, **part.arrays)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Arrays]:
        for part in self._stored():
            del part["skipped"]
            yield part

    def _stored(self) -> Iterator[Arrays]:
        for path in sorted(self.folder.glob("?????????.npz")):
            try:
                with np.load(path, allow_pickle=False) as stored:
                    part = dict(stored)
            except Exception as error:  # zipfile and NumPy raise many kinds
                raise DataError(
                    f"{path}: damaged ({error}); delete {self.folder} and start again"
                ) from None
            yield part

    def counts(self) -> tuple[int, list[tuple[str, str]]]:
        """The number of faces embedded, and (name, reason) of each image skipped."""
        count, skipped = 0, list[tuple[str, str]]()
        for part in self._stored():
            count += len(part["embeddings"])
            skipped += [(str(name), str(why)) for name, why in part["skipped"]]
        return count, skipped

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def _names_digest(source: FaceSource) -> str:
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(source.name(index).encode() + b"\0")
    return digest.hexdigest()
