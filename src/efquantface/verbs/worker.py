"""One worker of a gallery: makes a shard's output unless it is there, whole, and of the same kind."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from efquantface.data import addresses
from efquantface.data import shards as data
from efquantface.data.shards import Shard
from efquantface.data.source import FaceSource
from efquantface.embedding import stored
from efquantface.embedding.embedder import Embedder
from efquantface.embedding.parts import SIZE, Way, embed_part, fitted, nothing
from efquantface.errors import DataError, EvaluationError
from efquantface.files import make_folder, sweep, temporary_folder, whole
from efquantface.interfaces import Progress

_ABANDONED = 3600.0  # seconds without a write, after which a partial file has no writer


@dataclass(frozen=True)
class Job:
    """What decides the content of the outputs, and how it is computed; sent to every worker.

    Attributes:
        model, model_sha256: the file or name, and the file's SHA-256.
        output: folder or address.
        way: how crops become rows.
        preprocess, size, backend, device, threads: see :meth:`Embedder.open`.
        follow_links: see :func:`~efquantface.data.faces.open_source`.
        force: replace outputs of another model, setting or shard.
    """

    model: str
    model_sha256: str
    output: str
    way: Way
    preprocess: str | None = None
    size: tuple[int, int] | None = None
    backend: str = "auto"
    device: str = "cpu"
    threads: int | None = None
    follow_links: bool = False
    force: bool = False

    def settings(self) -> dict[str, Any]:
        """The settings that all outputs of a gallery share."""
        size = None if self.size is None else list(self.size)
        return {
            "model_sha256": self.model_sha256,
            "preprocess": self.preprocess,
            "size": size,
            **asdict(self.way),
        }


@dataclass(frozen=True)
class Done:
    """What became of a shard.

    Attributes:
        source: its path or address.
        faces, skipped: images embedded, and images that could not be read.
        before: whether it was done already.
        notes: sentences for the user.
        error: why it failed; empty where it is done.
    """

    source: str
    faces: int = 0
    skipped: int = 0
    before: bool = False
    notes: list[str] = field(default_factory=list)
    error: str = ""


class Worker:
    """Embeds one shard after the other; opens the model once, at the first shard that is not done."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._embedder: Embedder | None = None

    def embed(self, shard: Shard, progress: Progress | None = None) -> Done:
        """Make a shard's output, unless it is there.

        Raises:
            EfqError: the model cannot be used, or the output cannot be written. A fault of the shard is
                in the result's ``error`` instead.
        """
        try:
            return self._embed(shard, progress)
        except (DataError, EvaluationError) as error:
            return Done(shard.source, error=str(error))

    def _embed(self, shard: Shard, progress: Progress | None) -> Done:
        place = _Place(self.job.output, shard)
        there, notes = self._there(place, shard)
        version = data.version_of(shard)
        if there and version and there["source_version"] == version:
            return _before(shard, there)
        with data.opened(shard, self.job.follow_links) as (source, digest):
            if there and there["source_sha256"] == digest:
                return _before(shard, there)
            if there and there["source"] != shard.source and not self.job.force:
                raise DataError(
                    f"{place.where}: holds the embeddings of {there['source']}; embed "
                    f"{shard.source} into another folder, or add --force"
                )
            if there:
                notes = [*notes, f"{shard.source}: has changed; it is embedded again"]
            embedder = self._opened(source)
            parts = [] if len(source) else [nothing(embedder, self.job.way, [])]
            for start in range(0, len(source), SIZE):
                index = np.arange(start, min(start + SIZE, len(source)))
                parts.append(embed_part(embedder, source, index, self.job.way))
                if progress:
                    progress(int(index[-1]) + 1, len(source))
            items = len(source)
        arrays = [part.arrays for part in parts]
        skipped = [list(one) for part in parts for one in part.skipped]
        faces = sum(map(len, parts))
        facts = {
            "source": shard.source,
            "source_sha256": digest,
            "source_version": version,
            "items": items,
            "embeddings": faces,
            "skipped": skipped,
            "model": embedder.name,
            "backend": embedder.backend,
            "embedding_size": embedder.contract.embedding_size,
            **self.job.settings(),
            "sha256": stored.digest(arrays),
        }
        place.write(arrays, faces, facts)
        return Done(shard.source, faces, len(skipped), notes=notes)

    def _there(self, place: _Place, shard: Shard) -> tuple[dict[str, Any], list[str]]:
        """Facts of a whole output, empty where there is none; and notes on what is wrong with it.

        Raises:
            DataError: another model or other settings made it, and ``force`` is not given.
        """
        try:
            found = place.read()
        except DataError as error:
            return {}, [f"{error}; it is made again"]
        if found is None:
            return {}, []
        facts = found.facts
        wanted = self.job.settings()
        needed = {*wanted, "source", "source_sha256", "source_version", "embeddings", "sha256"}
        if not isinstance(facts, dict) or not needed <= set(facts):
            if self.job.force:
                return {}, []
            raise DataError(
                f"{place.where}: was not written by efq embed MODEL SHARDS; give another folder, or "
                "--force"
            )
        if facts["embeddings"] != len(found) or facts["sha256"] != found.digest():
            return {}, [f"{place.where}: is damaged (count or digest); it is made again"]
        other = [key for key, value in wanted.items() if facts[key] != value]
        if other and not self.job.force:
            what = ", ".join(f"{k} {facts[k]} instead of {wanted[k]}" for k in other)
            raise DataError(
                f"{place.where}: was made with {what}; a gallery holds embeddings of one kind only: "
                "give another folder, or --force"
            )
        return ({} if other else facts), []

    def _opened(self, source: FaceSource) -> Embedder:
        """The model; where it leaves the size of crops open, the first shard decides it."""
        if self._embedder is None:
            job = self.job
            self._embedder = fitted(
                job.model,
                source,
                size=job.size,
                resize=job.way.resize,
                backend=job.backend,
                preprocess=job.preprocess,
                device=job.device,
                threads=job.threads,
            )
        return self._embedder


class _Place:
    """Where a shard's output is, in a folder or at an address."""

    def __init__(self, output: str, shard: Shard) -> None:
        self.remote = addresses.is_address(output)
        joined = f"{output.rstrip('/')}/{shard.output}"
        self.where = joined if self.remote else str(Path(joined))
        self.kind = Path(shard.output).suffix

    def read(self) -> stored.Stored | None:
        """The output, or None where there is none.

        Raises:
            DataError: it is damaged.
        """
        if not self.remote:
            sweep(Path(self.where), _ABANDONED)
            return stored.read(Path(self.where)) if Path(self.where).exists() else None
        if not addresses.exists(self.where):
            return None
        with temporary_folder() as folder:
            return stored.read(addresses.fetch(self.where, folder))

    def write(self, arrays: list[stored.Arrays], count: int, facts: dict[str, Any]) -> None:
        """Write the output, whole or not at all, readable by its owner only.

        Raises:
            WriteError: it cannot be written.
        """
        with ExitStack() as stack:
            if self.remote:
                path = stack.enter_context(addresses.sending(self.where))
            else:
                path = Path(self.where)
                make_folder(path.parent, private=True)
            with whole(path, private=True, shared=True) as stream:
                stored.write(self.kind, stream, arrays, count, facts)


def _before(shard: Shard, facts: dict[str, Any]) -> Done:
    return Done(shard.source, facts["embeddings"], len(facts["skipped"]), before=True)
