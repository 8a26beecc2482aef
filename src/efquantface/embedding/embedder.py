"""Embedder: the interface to a network that evaluation, benchmark, parity and report use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from efquantface.contract import FaceContract
from efquantface.errors import ContractError, EvaluationError
from efquantface.extras import wanted_for
from efquantface.importers.contracts import opened, resolve
from efquantface.interfaces import Progress
from efquantface.runtime.backends import BACKENDS, backend_for, not_exported
from efquantface.runtime.sessions import Float32, Run, onnxruntime_session, run_onnxruntime

if TYPE_CHECKING:
    from torch import nn

    from efquantface.graph.model import FaceModel


@dataclass
class Embedder:
    """Crops uint8 RGB (N,H,W,3) to embeddings float32 (N,D), in any runtime.

    Files of runtimes need no PyTorch; checkpoints and modules do (the ``compress`` extra).

    Attributes:
        contract: size, preprocessing and embedding size.
        name: file name or model name, for tables.
        backend: ``torch``, ``onnxruntime``, ``openvino`` or ``litert``.
        run: the network itself: normalized float32 (N,3,H,W) to embeddings (N,D).
        path: the file, where there is one.
        open_size: whether the file takes crops of any size and the user gave none.
        notes: sentences on how the file's input and sizes were read.

    Example:
        >>> embedder = Embedder.open("student.onnx")
        >>> embedder.backend, embedder.contract.embedding_size
        ('onnxruntime', 16)
    """

    contract: FaceContract
    name: str
    backend: str
    run: Run
    path: Path | None = None
    open_size: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        model: str | Path | nn.Module | FaceModel,
        *,
        backend: str = "auto",
        device: str = "cpu",
        threads: int | None = None,
        contract: FaceContract | None = None,
        preprocess: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> Embedder:
        """Open a model to embed faces with.

        Args:
            model: ``.onnx``, ``.xml`` (OpenVINO), ``.tflite`` (LiteRT), a checkpoint, a run's folder,
                the name of a default, an ``nn.Module`` with ``contract``, or a loaded model.
            backend: ``auto`` takes the file's own runtime, PyTorch for checkpoints.
            device: ``cpu`` or ``cuda``.
            threads: threads of the runtime; None takes all cores.
            contract, preprocess: for files that do not say how pixels are normalized.
            size: height and width of crops, for files that leave them open.

        Returns:
            An embedder. Its contract has the embedding size that the file gives when it runs.

        Raises:
            ModelFileError: the file is missing, damaged, or no face-recognition network.
            ContractError: a module has no contract, or the contract does not fit the file.
            RuntimeMissingError: the runtime or device is not on this machine.
            MissingPackageError: the model needs PyTorch, and it is not installed.
        """
        if isinstance(model, str | Path):
            path = resolve(model)
            runtime = backend_for(path, backend)
            if runtime is not None:
                found, facts = opened(path, contract, preprocess, size)
                run = runtime.run(path, threads, device, found.output_name)
                made = cls(_sized(found, run), path.name, runtime.name, run, path)
                if facts is not None:
                    made.open_size, made.notes = facts.open_size, facts.notes
                return made
        with wanted_for(_what(model)):
            from efquantface.embedding.torch_run import run_torch
            from efquantface.export.onnx_writer import to_onnx
            from efquantface.importers.load import load_model
        loaded = load_model(model, contract=contract, preprocess=preprocess, size=size)
        name = loaded.name
        if backend == "onnxruntime":
            session = onnxruntime_session(to_onnx(loaded).SerializeToString(), threads, device)
            return cls(loaded.contract, name, backend, run_onnxruntime(session), loaded.source)
        if backend in BACKENDS:
            raise not_exported(backend)
        run = run_torch(loaded, device)
        return cls(loaded.contract, name, "torch", run, loaded.source, loaded.open_size)

    def embed(
        self,
        faces: npt.NDArray[np.uint8],
        *,
        flip: bool = False,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> Float32:
        """Embeddings of crops, not normalized to length 1.

        Args:
            faces: uint8 RGB crops (N,H,W,3) of the contract's size, or one crop (H,W,3).
            flip: add the mirror image's embedding; neither is normalized.
            batch_size: crops per call of the runtime.
            progress: called with (done, total).

        Returns:
            float32 (N,D); (D,) for one crop.

        Raises:
            ContractError: the crops have another size, shape or dtype.
            EvaluationError: an embedding is not finite.

        Example:
            Cosines of faces with each other:

            >>> rows = embedder.embed(faces)
            >>> rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            >>> (rows @ rows.T).shape
            (2, 2)
            >>> embedder.embed(faces[0]).shape
            (16,)
        """
        check_faces(faces, self.contract)
        if faces.ndim == 3:
            one: Float32 = self.embed(faces[None], flip=flip, progress=progress)[0]
            return one
        parts = []
        for start in range(0, len(faces), batch_size):
            batch = faces[start : start + batch_size]
            result = self.run(self.contract.normalize(batch))
            if flip:
                result = result + self.run(self.contract.normalize(batch[:, :, ::-1]))
            bad = np.flatnonzero(~np.isfinite(result).all(axis=1))
            if len(bad):
                raise EvaluationError(
                    f"{self.name}: the embedding of face {start + int(bad[0])} is not finite"
                )
            parts.append(result)
            if progress:
                progress(min(start + batch_size, len(faces)), len(faces))
        return np.concatenate(parts)


def check_faces(faces: npt.NDArray[np.uint8], contract: FaceContract) -> None:
    """Check shape and dtype of crops; the error says which are right.

    Raises:
        ContractError: they are not uint8 (N,H,W,3) or (H,W,3), or there are none.
    """
    shape, dtype = tuple(np.shape(faces)), getattr(faces, "dtype", type(faces).__name__)
    right = (
        f"uint8 RGB crops (N, {contract.height}, {contract.width}, 3), or one without the N, "
        "are expected"
    )
    if dtype != np.uint8:
        raise ContractError(f"faces are {dtype} of shape {shape}; {right}")
    if len(shape) not in (3, 4) or shape[-1] != 3:
        first = len(shape) in (3, 4) and shape[-3] == 3
        hint = "; channels come last: np.moveaxis(faces, -3, -1)" if first else ""
        raise ContractError(f"faces have shape {shape}; {right}{hint}")
    if not shape[0]:
        raise ContractError("no faces to embed")


def _what(model: object) -> str:
    """What needs PyTorch, in words."""
    if not isinstance(model, str | Path):
        return f"{type(model).__name__}: a PyTorch model"
    if Path(model).suffix == ".onnx":
        return f"{model}: running it in PyTorch"
    return f"{model}: reading a checkpoint, unlike an ONNX file,"


def _sized(contract: FaceContract, run: Run) -> FaceContract:
    """The contract with the embedding size that the file gives; some files do not declare it."""
    black = np.zeros((1, contract.height, contract.width, 3), np.uint8)
    size = run(contract.normalize(black)).shape[1]
    return contract if size == contract.embedding_size else replace(contract, embedding_size=size)
