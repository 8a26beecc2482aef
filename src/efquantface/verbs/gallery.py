"""Galleries of any size: one file of embeddings per shard of faces, whole or not there.

Nothing is scheduled here. A shard is done when its output says so and the content agrees. So any
scheduler that starts and restarts processes is enough. Two processes may do the same shard.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from efquantface.assets import MODELS, file_sha256
from efquantface.console import Console
from efquantface.data import addresses
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
    """What became of all shards.

    Attributes:
        output: the folder or address.
        shards: how many are done.
        before: how many of them were done already.
        faces, skipped: images embedded, and images that could not be read.
    """

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
    """Embed one shard after the other in this process."""
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
    """Embed shards of faces into a folder, one output per shard. Outputs that are done are kept.

    Outputs are ``.parquet`` for shards in parquet and ``.npz`` for others. They have the columns of
    :func:`~efquantface.verbs.embed.embed_faces` and, in ``efquantface.json``, what they were made of.
    Where a shard cannot be used, the others are still done. A shard's embeddings are in memory until
    they are written: 2 kB per face of 512 values.

    Args:
        model: as :meth:`Embedder.open` takes it; for a run's folder, its ``student.onnx`` is used.
        shards: ``.parquet``, ``.rec``, ``.tar`` (WebDataset), list files and folders; paths,
            patterns, or addresses that fsspec knows (the ``gallery`` extra).
        output: folder or address; made where it is missing.
        shard: ``I/N`` takes only every Nth shard, from the Ith on, counted from 1.
        preprocess, size, backend, flip, normalize, resize, embedding: as of
            :func:`~efquantface.verbs.embed.embed_faces`.
        device, threads, follow_links: the same.
        force: replace outputs of another model, setting or shard.
        quiet: print nothing.
        each: does the work: :func:`here`, or what :func:`efquantface.ray.workers` returns.

    Raises:
        DataError: there is no shard; or some could not be done, raised after all others are.
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
    """Sum all results, and report each failure.

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
            f"{len(failed):,} of {total:,} shards are not done, the first: {failed[0].error}; mend "
            "them and call again; the others stay"
        )
    return gallery


def model_file(model: str | Path) -> tuple[str, str]:
    """The absolute path or the name by which workers open the model, and the file's SHA-256."""
    if str(model) in MODELS:
        return str(model), file_sha256(resolve(model))
    path = Path(model)
    if (path / _STUDENT).is_file():
        path = path / _STUDENT
    return str(path.absolute()), file_sha256(resolve(path))


def _output(output: str) -> str:
    return output if addresses.is_address(output) else os.path.abspath(output)  # noqa: PTH100
