"""A written file as a client uses it: opened by its path, run with batches of several sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.contract import FaceContract
from efquantface.errors import ModelFileError, ParityError
from efquantface.runtime.sessions import Run, onnxruntime_session, run_onnxruntime

BATCHES = (1, 7, 67)  # one, an odd number, one more than kernels tile by

Rows = npt.NDArray[np.float32]


def embed_alone(
    path: Path, contract: FaceContract, faces: npt.NDArray[np.uint8], *, exact_sums: bool = False
) -> tuple[Rows, dict[int, Rows]]:
    """Embeddings of uint8 crops by a file in ONNX Runtime.

    Args:
        path: the file.
        contract: the one that the file states.
        faces: uint8 RGB crops (N,H,W,3).
        exact_sums: as in :func:`onnxruntime_session`.

    Returns:
        Embeddings (N,D) float32 of all crops in one batch. Then embeddings (size,D) by batch size, for
        each size of ``BATCHES``: these batches repeat the crops from the first one on.

    Raises:
        ParityError: ONNX Runtime does not load the file, or the file does not run with a batch size.
            Or its embeddings are not finite or of another shape.
    """
    try:
        session = onnxruntime_session(path, exact_sums=exact_sums)
    except ModelFileError as error:
        raise ParityError(f"{error}; it fails the parity check") from None
    return in_batches(run_onnxruntime(session, contract.output_name), path, contract, faces)


def in_batches(
    run: Run, path: Path, contract: FaceContract, faces: npt.NDArray[np.uint8]
) -> tuple[Rows, dict[int, Rows]]:
    """The same as :func:`embed_alone`, for a function of any runtime.

    Args:
        run: gives embeddings (N,D) of normalized float32 crops (N,3,H,W).
        path: the file, for errors.
        contract: the one that the file states.
        faces: uint8 RGB crops (N,H,W,3).

    Raises:
        ParityError: a batch does not run, or its embeddings are not finite or of another shape.
    """
    x = contract.normalize(faces)
    whole = _called(run, path, x, contract)
    index = {size: np.arange(size) % len(x) for size in BATCHES}
    return whole, {size: _called(run, path, x[rows], contract) for size, rows in index.items()}


def batch_problems(whole: Rows, batches: dict[int, Rows], allowed: float) -> list[str]:
    """Batch sizes in which a crop gets another embedding than in the whole batch, one sentence each.

    Args:
        whole, batches: of :func:`in_batches`.
        allowed: the largest :func:`distance` that rounding explains.
    """
    found = []
    for size, rows in batches.items():
        worst = distance(rows, whole[np.arange(size) % len(whole)]).max()
        if not worst <= max(allowed, ROUNDING):
            found.append(f"in a batch of {size} a crop gets another embedding (by {worst:.2g})")
    return found


ROUNDING = 1e-6  # of an embedding's length; float32 itself loses this much


def distance(a: npt.NDArray[np.floating[Any]], b: npt.NDArray[np.floating[Any]]) -> Rows:
    """Euclidean distances (N,) between rows (N,D), divided by the lengths of ``b``'s rows."""
    lengths = np.maximum(np.linalg.norm(b, axis=1), np.finfo(np.float32).tiny)
    return np.asarray(np.linalg.norm(a - b, axis=1) / lengths, np.float32)


def _called(run: Run, path: Path, x: Rows, contract: FaceContract) -> Rows:
    """Embeddings of one batch, checked for shape and finite values."""
    try:
        rows = run(x)
    except Exception as error:  # each runtime raises classes of its own
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
