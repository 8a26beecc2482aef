"""A written file as a client meets it: opened by its path, fed crops in batches of several sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.contract import FaceContract
from efquantface.errors import ModelFileError, ParityError
from efquantface.runtime.sessions import Run, onnxruntime_session, run_onnxruntime

BATCHES = (1, 7, 67)  # one, an odd number, and more than any power of two that kernels tile by

Rows = npt.NDArray[np.float32]


def embed_alone(
    path: Path, contract: FaceContract, faces: npt.NDArray[np.uint8], *, exact_sums: bool = False
) -> tuple[Rows, dict[int, Rows]]:
    """Embeddings of uint8 crops by a file in ONNX Runtime.

    Args:
        path: the file.
        contract: as the file states it.
        faces: uint8 RGB crops (N,H,W,3).
        exact_sums: see :func:`onnxruntime_session`.

    Returns:
        Embeddings (N,D) of all crops in one batch, and those of ``BATCHES`` sizes, whose crops are the
        same ones in turn.

    Raises:
        ParityError: ONNX Runtime does not load it, or it does not run with one of the batch sizes.
    """
    try:
        session = onnxruntime_session(path, exact_sums=exact_sums)
    except ModelFileError as error:
        raise ParityError(f"{error}; it fails the parity check") from None
    return in_batches(run_onnxruntime(session, contract.output_name), path, contract, faces)


def in_batches(
    run: Run, path: Path, contract: FaceContract, faces: npt.NDArray[np.uint8]
) -> tuple[Rows, dict[int, Rows]]:
    """The same for any runtime's function from normalized crops to embeddings."""
    x = contract.normalize(faces)
    whole = _called(run, path, x, contract)
    index = {size: np.arange(size) % len(x) for size in BATCHES}
    return whole, {size: _called(run, path, x[rows], contract) for size, rows in index.items()}


def batch_problems(whole: Rows, batches: dict[int, Rows], allowed: float) -> list[str]:
    """Batch sizes whose rows are not those of the whole batch; 1 - cosine up to ``allowed`` is fine."""
    found = []
    for size, rows in batches.items():
        worst = distance(rows, whole[np.arange(size) % len(whole)]).max()
        if not worst <= max(allowed, ROUNDING):
            found.append(f"in a batch of {size} a crop gets another embedding (by {worst:.2g})")
    return found


ROUNDING = 1e-6  # of an embedding's length: what float32 itself loses


def distance(a: npt.NDArray[np.floating[Any]], b: npt.NDArray[np.floating[Any]]) -> Rows:
    """How far rows (N,D) lie from those of ``b``, (N,), in parts of ``b``'s length; length counts."""
    lengths = np.maximum(np.linalg.norm(b, axis=1), np.finfo(np.float32).tiny)
    return np.asarray(np.linalg.norm(a - b, axis=1) / lengths, np.float32)


def _called(run: Run, path: Path, x: Rows, contract: FaceContract) -> Rows:
    """Embeddings of one batch, finite and of the right shape."""
    try:
        rows = run(x)
    except Exception as error:  # runtimes raise classes of their own, all from one base
        text = str(error).splitlines()[0]
        raise ParityError(f"{path}: does not run with a batch of {len(x)} ({text})") from None
    if rows.shape != (len(x), contract.embedding_size):
        raise ParityError(
            f"{path}: fails the parity check: a batch of {len(x)} gives embeddings of shape "
            f"{rows.shape}, not {(len(x), contract.embedding_size)}"
        )
    if not np.isfinite(rows).all():
        raise ParityError(f"{path}: fails the parity check: embeddings are not finite")
    return rows
