"""Embedder: the one view of a network that evaluation, benchmark, parity and report have."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from efquantface.contract import FaceContract
from efquantface.errors import ContractError, EvaluationError, RuntimeMissingError
from efquantface.export.onnx_writer import to_onnx
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model, onnx_contract, resolve
from efquantface.quantize.fused import fused
from efquantface.runtime.sessions import (
    Float32,
    Run,
    onnxruntime_session,
    run_onnxruntime,
    run_openvino,
)

Progress = Callable[[int, int], None]


@dataclass
class Embedder:
    """uint8 RGB faces (N,H,W,3) to float32 embeddings (N,D), whatever computes them.

    Attributes:
        contract: what the crops have to be.
        name: file name or model name, for tables.
        backend: ``torch``, ``onnxruntime`` or ``openvino``.
        path: the file, where there is one.
    """

    contract: FaceContract
    name: str
    backend: str
    run: Run
    path: Path | None = None

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
    ) -> Embedder:
        """Open a model to embed faces with.

        Args:
            model: ``.onnx``, ``.xml`` (OpenVINO), ``.safetensors``, a run's directory, the name of
                a default, an ``nn.Module`` with ``contract``, or a loaded model.
            backend: ``auto`` takes ONNX Runtime for .onnx, OpenVINO for .xml, PyTorch otherwise.
            device: ``cpu`` or ``cuda``.
            threads: threads of the runtime; all cores where None.
            contract, preprocess: for files that do not say how pixels are normalized.

        Raises:
            ModelFileError, ContractError, RuntimeMissingError: see their texts.
        """
        if isinstance(model, str | Path):
            path = resolve(model)
            if path.suffix == ".xml" or (path.suffix == ".onnx" and backend != "torch"):
                found = onnx_contract(path, contract, preprocess)
                if path.suffix == ".xml" or backend == "openvino":
                    backend, run = "openvino", run_openvino(path, threads, device)
                else:
                    backend = "onnxruntime"
                    session = onnxruntime_session(path, threads, device)
                    run = run_onnxruntime(session, found.output_name)
                return cls(_sized(found, run), path.name, backend, run, path)
        loaded = load_model(model, contract=contract, preprocess=preprocess)
        name = loaded.name
        if backend == "onnxruntime":
            session = onnxruntime_session(to_onnx(loaded).SerializeToString(), threads, device)
            return cls(loaded.contract, name, backend, run_onnxruntime(session), loaded.source)
        if backend == "openvino":
            raise RuntimeMissingError("OpenVINO takes .onnx and .xml files; export the model first")
        return cls(loaded.contract, name, "torch", _torch_run(loaded, device), loaded.source)

    def embed(
        self,
        faces: npt.NDArray[np.uint8],
        *,
        flip: bool = False,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> Float32:
        """Embeddings (N,D), not normalized.

        Args:
            faces: uint8 RGB crops (N,H,W,3) of the contract's size.
            flip: add the mirror image's embedding (both as they come, before normalization).
            batch_size: crops a call.
            progress: called with (done, total).

        Raises:
            ContractError: crops of another size or dtype.
            EvaluationError: an embedding is not finite.
        """
        if len(faces) == 0:
            raise ContractError("no faces to embed")
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


def _sized(contract: FaceContract, run: Run) -> FaceContract:
    """The contract with the embedding size that the file really gives (some do not declare it)."""
    black = np.zeros((1, contract.height, contract.width, 3), np.uint8)
    size = run(contract.normalize(black)).shape[1]
    return contract if size == contract.embedding_size else replace(contract, embedding_size=size)


def check_device(device: str) -> torch.device:
    """A usable torch device.

    Raises:
        RuntimeMissingError: the device is unknown or not on this machine.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        raise RuntimeMissingError(f"device {device!r} is not known; use cpu or cuda") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeMissingError("CUDA was asked for and is not available; use --device cpu")
    return found


def _torch_run(model: FaceModel, device: str) -> Run:
    """PyTorch on normalized input: the graph takes pixels, so the contract is undone first."""
    where = check_device(device)
    # elsewhere a copy: the caller goes on with the model on the CPU
    graph = (model.graph if where.type == "cpu" else copy.deepcopy(model.graph)).to(where)
    graph = fused(graph) if model.quantized else graph
    mean = torch.tensor(model.contract.mean, device=where).view(1, 3, 1, 1)
    std = torch.tensor(model.contract.std, device=where).view(1, 3, 1, 1)

    def run(x: Float32) -> Float32:
        with torch.no_grad():
            pixels = torch.from_numpy(x).to(where) * std + mean
            return np.asarray(graph(pixels.round()).cpu().numpy(), np.float32)

    return run
