"""Galleries on Ray, on all cores of a machine or on a cluster (the ``ray`` extra).

    embed_gallery("student.onnx", shards, "gallery", each=workers(8))
    embed_dataset(ray.data.read_parquet("s3://faces"), "student.onnx", workers=8)

Without ``RAY_ADDRESS`` Ray starts on this machine. With it, or inside a Ray job, that cluster is used.
Each actor opens the model once. Ray gives an actor the next block when it is free. It restarts an actor
that died, and repeats its block.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from efquantface import errors
from efquantface.console import Console
from efquantface.data.parquet import IMAGES, image_bytes
from efquantface.data.shards import Shard
from efquantface.data.source import FaceSource
from efquantface.embedding.embedder import Embedder
from efquantface.embedding.parts import Way, embed_part
from efquantface.errors import DataError
from efquantface.extras import wanted_for
from efquantface.verbs.gallery import Each, model_file
from efquantface.verbs.worker import Done, Job, Worker


def workers(count: int, worker: type[Worker] = Worker) -> Each:
    """Actors for ``each`` of :func:`~efquantface.verbs.gallery.embed_gallery`.

    Each actor takes ``threads`` cores, one by default. If an actor dies, another one repeats its shard.
    Outputs appear whole, so none is there twice or in part.

    Args:
        count: number of actors; no more are started than there are shards.
        worker: the class that embeds shards in an actor.

    Raises:
        MissingPackageError: Ray is not installed.
    """
    with wanted_for("galleries on Ray"):
        import ray.data  # noqa: F401 - fail at once

    def each(job: Job, shards: Sequence[Shard], console: Console) -> Iterator[Done]:
        import ray.data

        _quiet()
        job = replace(job, threads=job.threads or 1)
        rows = [asdict(shard) for shard in shards]
        # one block per shard: with an actor, one shard is lost
        found = ray.data.from_items(rows, override_num_blocks=max(len(rows), 1)).map_batches(
            _ShardActor,
            fn_constructor_args=(worker, job),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=max(min(count, len(rows)), 1)),
            num_cpus=job.threads,
        )
        with console.bar("shards") as advance:
            for number, row in enumerate(found.iter_rows()):
                if fatal := row.pop("fatal"):
                    raise getattr(errors, fatal)(row["error"])
                yield Done(**{**row, "notes": list(row["notes"])})
                advance(number + 1, len(rows))

    return each


def embed_dataset(
    dataset: Any,
    model: str | Path,
    *,
    workers: int = 1,
    column: str | None = None,
    batch_size: int = 256,
    flip: bool = False,
    normalize: bool = False,
    resize: bool = False,
    embedding: str = "float32",
    preprocess: str | None = None,
    backend: str = "auto",
    threads: int = 1,
) -> Any:
    """Turn a Ray dataset of images into one of embeddings, block by block.

    Args:
        dataset: rows with a column of image bytes (``binary`` or ``struct{bytes}``).
        model: as :meth:`Embedder.open` takes it, at a path that every node has.
        workers: number of actors.
        column: of the images; None finds one with a usual name (``image``, ...).
        batch_size: rows per call.
        flip, normalize, resize, embedding, preprocess, backend, threads: as of
            :func:`~efquantface.verbs.embed.embed_faces`.

    Returns:
        The dataset without its images, and with new columns: ``embedding`` (a list of fixed length, null
        where the image cannot be read), ``unreadable`` (the reason, otherwise null), and ``scale`` where
        embeddings are int8.

    Raises:
        MissingPackageError: Ray is not installed.
        EfqError: the model cannot be used.
    """
    with wanted_for("datasets of Ray"):
        import ray.data

    _quiet()
    options = {"backend": backend, "preprocess": preprocess, "threads": threads}
    way = Way(flip, normalize, resize, embedding)
    return dataset.map_batches(
        FaceEmbedder,
        fn_constructor_args=(model_file(model)[0], way, column, options),
        batch_size=batch_size,
        batch_format="pyarrow",
        # fewer where that leaves cores for reading
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=threads,
    )


class FaceEmbedder:
    """Turns Arrow tables of images into tables of embeddings; the model stays open."""

    def __init__(
        self,
        model: str,
        way: Way | None = None,
        column: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """See :func:`embed_dataset`; ``options`` are those of :meth:`Embedder.open`."""
        self.embedder = Embedder.open(model, **(options or {}))
        self.way, self.column = way or Way(), column

    def __call__(self, table: Any) -> Any:
        """A ``pyarrow.Table`` with embeddings in place of its images, see :func:`embed_dataset`.

        Raises:
            DataError: there is no column of images.
            CropError: the crops have another size.
        """
        import pyarrow as arrow

        names = table.column_names
        column = self.column or next((n for n in IMAGES if n in names), "")
        if column not in names:
            raise DataError(f"no column {column or 'of images'}; there are {', '.join(names)}")
        source = _TableSource(table[column], column)
        part = embed_part(self.embedder, source, np.arange(len(source)), self.way)
        rows = part.arrays["embeddings"]
        place = {name: number for number, name in enumerate(part.arrays["names"].tolist())}
        why = dict(part.skipped)
        at = [place.get(str(i)) for i in range(len(source))]
        lists = arrow.FixedSizeListArray.from_arrays(
            arrow.array(np.ascontiguousarray(rows).reshape(-1)),
            self.embedder.contract.embedding_size,
        )
        index = arrow.array(at, arrow.int64())
        out = table.drop_columns([column]).append_column("embedding", lists.take(index))
        if "scales" in part.arrays:
            out = out.append_column("scale", arrow.array(part.arrays["scales"]).take(index))
        reasons = arrow.array([why.get(str(i)) for i in range(len(source))], arrow.string())
        return out.append_column("unreadable", reasons)


class _ShardActor:
    """Turns tables of shards into tables of :class:`~efquantface.verbs.worker.Done`."""

    def __init__(self, worker: type[Worker], job: Job) -> None:
        self.worker = worker(job)

    def __call__(self, table: Any) -> Any:
        import pyarrow as arrow

        done = [self._done(Shard(**row)) for row in table.to_pylist()]
        kinds = arrow.schema(
            [
                ("source", arrow.string()),
                ("faces", arrow.int64()),
                ("skipped", arrow.int64()),
                ("before", arrow.bool_()),
                ("notes", arrow.list_(arrow.string())),
                ("error", arrow.string()),
                ("fatal", arrow.string()),
            ]
        )
        return arrow.Table.from_pylist(done, schema=kinds)

    def _done(self, shard: Shard) -> dict[str, Any]:
        """What became of a shard; ``fatal`` names an error that ends all work."""
        try:
            return {**asdict(self.worker.embed(shard)), "fatal": ""}
        except errors.EfqError as error:
            return {**asdict(Done(shard.source, error=str(error))), "fatal": type(error).__name__}


class _TableSource(FaceSource):
    """A column of images, named by their row numbers."""

    def __init__(self, column: Any, name: str) -> None:
        self.where, self.root, self.column = f"column {name}", Path(), column
        self.identities, self.identity_names = np.full(len(column), -1, np.int64), []

    def name(self, index: int) -> str:
        return str(index)

    def encoded(self, index: int) -> bytes:
        return image_bytes(self.column[index].as_py(), f"{self.where}: row {index}")


def _quiet() -> None:
    """Join the cluster or start one here, without Ray's own progress bars."""
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
