"""Galleries of any size: a file of embeddings for every shard of faces, whole or not there.

There is no engine here. A shard is done where its output says so and its content agrees; so any
scheduler that starts processes, and starts them again, is enough, and two that do the same shard do
no harm.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from efquantface import addresses
from efquantface.assets import MODELS, file_sha256
from efquantface.console import Console
from efquantface.data import shards as data
from efquantface.data.shards import Shard
from efquantface.embedding.parts import Way
from efquantface.errors import DataError
from efquantface.extras import wanted_for
from efquantface.importers.contracts import resolve
from efquantface.verbs.worker import Done, Job, Worker

_STUDENT = "student.onnx"


@dataclass(frozen=True)
class Gallery:
    """What became of all shards."""

    output: str
    shards: int
    before: int
    faces: int
    skipped: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


Each = Callable[[Job, Sequence[Shard], Console], Iterator[Done]]


def here(job: Job, shards: Sequence[Shard], console: Console) -> Iterator[Done]:
    """One shard after the other in this process."""
    worker = Worker(job)
    with console.bar("shards") as advance:
        for number, shard in enumerate(shards):

            def within(done: int, total: int, at: int = number, of: Shard = shard) -> None:
                advance(at, len(shards), f"{of.name}: {done:,} of {total:,} faces")

            yield worker.embed(shard, within)
            advance(number + 1, len(shards))


def embed_gallery(
    model: str | Path,
    shards: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    shard: str = "1/1",
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
    each: Each = here,
) -> Gallery:
    """Embed shards of faces into a folder, one output a shard; what is done is left alone.

    Outputs are parquet for parquet and ``.npz`` otherwise, with the columns of
    :func:`~efquantface.verbs.embed.embed_faces` and, in ``efquantface.json``, what they were made of.
    A shard that cannot be used does not keep the others from being done. A shard's embeddings are
    in memory until they are written: 2 kB a face of 512 values.

    Args:
        model: as :meth:`Embedder.open` takes it; a run's folder stands for its ``student.onnx``.
        shards: ``.parquet``, ``.rec``, ``.tar`` (WebDataset), list files and folders; paths,
            patterns, or addresses that fsspec knows (the ``gallery`` extra).
        output: folder or address; made where it is missing.
        shard: ``I/N``: only every Nth shard, from the Ith on, counted from 1.
        preprocess, size, backend, flip, normalize, resize, embedding: as of
            :func:`~efquantface.verbs.embed.embed_faces`.
        device, threads, follow_links: the same.
        force: replace outputs of another model, setting or shard.
        each: who does the work; :func:`efquantface.ray.workers` is another.

    Raises:
        DataError: no shard, or some that could not be done, once all others are.
        EfqError: the model cannot be used, or an output cannot be written.

    Example:
        >>> embed_gallery("student.onnx", ["a.rec", "b.tar"], "gallery", quiet=True)
        Gallery(output='gallery', shards=2, before=0, faces=96, skipped=0)
        >>> embed_gallery("student.onnx", ["a.rec", "b.tar"], "gallery", quiet=True).before
        2
    """
    console = Console(quiet)
    way = Way(flip, normalize, resize, embedding)
    given = [shards] if isinstance(shards, str | Path) else list(shards)
    every = data.shards_of([str(name) for name in given])
    mine = data.my_share(every, shard)
    if any(s.output.endswith(".parquet") for s in mine):
        with wanted_for("shards in parquet: reading them"):
            import pyarrow.parquet  # noqa: F401 - before anything is embedded
    job = Job(
        *model_file(model),
        _output(str(output)),
        way,
        preprocess,
        size,
        backend,
        device,
        threads,
        follow_links,
        force,
    )
    count = (
        f"{len(mine):,} of {len(every):,} shards"
        if len(mine) < len(every)
        else f"{len(mine):,} shards"
    )
    console.log(f"{count} into {output}")
    return _summed(str(output), each(job, mine, console), len(mine), console)


def _summed(output: str, results: Iterable[Done], total: int, console: Console) -> Gallery:
    """All results together.

    Raises:
        DataError: some shards failed.
    """
    failed, done = list[Done](), list[Done]()
    for result in results:
        (failed if result.error else done).append(result)
        for note in result.notes:
            console.warn(note)
        if result.error:
            console.warn(f"{result.source}: not done: {result.error}")
    gallery = Gallery(
        output,
        len(done),
        sum(d.before for d in done),
        sum(d.faces for d in done),
        sum(d.skipped for d in done),
    )
    if failed:
        raise DataError(
            f"{len(failed):,} of {total:,} shards are not done, the first: {failed[0].error}; "
            "call again "
            "once they are mended, the others stay"
        )
    return gallery


def model_file(model: str | Path) -> tuple[str, str]:
    """The model as workers open it wherever they run, and its digest."""
    if str(model) in MODELS:
        return str(model), file_sha256(resolve(model))
    path = Path(model)
    if (path / _STUDENT).is_file():
        path = path / _STUDENT
    return str(path.absolute()), file_sha256(resolve(path))


def _output(output: str) -> str:
    return output if addresses.is_address(output) else os.path.abspath(output)  # noqa: PTH100
