"""The teacher: the user's file and its graph, with one embedder for each way to run them."""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from torch import nn

from efquantface.assets import file_sha256
from efquantface.contract import FaceContract
from efquantface.embedding.cache import EmbeddingCache
from efquantface.embedding.embedder import Embedder
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.interfaces import Embeds
from efquantface.pipeline.preflight import model_digest


class Teacher:
    """A network to compress.

    Attributes:
        model: its canonical graph.
        file: the user's ONNX file; None if the teacher is something else.
    """

    def __init__(self, model: FaceModel, file: Path | None = None) -> None:
        self.model, self.file = model, file
        self._opened: dict[tuple[bool, str, str, int | None], Embedder] = {}

    @classmethod
    def open(
        cls,
        given: str | Path | nn.Module | FaceModel,
        *,
        contract: FaceContract | None = None,
        preprocess: str | None = None,
        size: tuple[int, int] | None = None,
        licence: str = "",
    ) -> Teacher:
        """Load a teacher.

        Args:
            given: a file, a run's folder, the name of a default, a module or a loaded model.
            contract: overrides the file's.
            preprocess: name of the preprocessing, for files that do not say it.
            size: height and width of crops, for files that leave them open.
            licence: note that is stored in the contract.

        Raises:
            ModelFileError, ContractError: as :func:`~efquantface.importers.load.load_model`.
        """
        model = load_model(given, contract=contract, preprocess=preprocess, size=size)
        if licence:
            model.contract = model.contract.with_licence(licence)
        file = model.source if isinstance(given, str | Path) else None
        return cls(model, file if file is not None and file.suffix == ".onnx" else None)

    @property
    def contract(self) -> FaceContract:
        """What it expects of its crops."""
        return self.model.contract

    @cached_property
    def digest(self) -> str:
        """Digest of all weights and the contract: the key of its cached embeddings."""
        return model_digest(self.model)

    def embedder(
        self,
        *,
        own: bool = False,
        backend: str = "onnxruntime",
        device: str = "cpu",
        threads: int | None = None,
    ) -> Embedder:
        """An embedder of the teacher. Calls with the same arguments return the same one.

        Args:
            own: run the user's ONNX file, if there is one. Otherwise the graph is run, which gives the
                same embeddings and is mostly faster.
            backend: ``onnxruntime`` or ``torch``, for the graph.
            device: ``cpu`` or ``cuda``.
            threads: of the runtime; None: all cores.
        """
        own = own and self.file is not None
        key = own, backend, device, threads
        if key not in self._opened:
            if own:
                assert self.file is not None
                found = Embedder.open(
                    self.file, contract=self.contract, device=device, threads=threads
                )
            else:
                found = Embedder.open(self.model, backend=backend, device=device, threads=threads)
            self._opened[key] = found
        return self._opened[key]

    def remembering(self, embedder: Embedder) -> Embeds:
        """``embedder`` (of :meth:`embedder`) with the user's embedding cache."""
        file = file_sha256(embedder.path) if embedder.path is not None else ""
        key = f"{self.digest} {file} {embedder.backend} {version('onnxruntime')}"
        return EmbeddingCache(embedder, key)
