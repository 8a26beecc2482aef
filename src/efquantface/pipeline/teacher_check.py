"""Compares the imported graph with the user's file or module; a run stops if they differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from efquantface.contract import FaceContract
from efquantface.errors import ImportMismatchError, ModelFileError, NotRunnableError
from efquantface.graph.model import FaceModel
from efquantface.pipeline.reference import Reference, first_difference, reference_of
from efquantface.runtime.sessions import Float32

CROPS = 16
# Half precision rounds every value by 3e-4 (root mean square). 400 roundings in a row, as in
# ResNet-100, give a distance of 6e-3, which is 2e-5 in cosine. The rest is a margin for networks
# that amplify errors. EdgeFace loses 3.5e-6, MobileFaceNets 3e-7 (ONNX Runtime on x86).
COSINE, HALF_COSINE = 0.9999, 0.9995
_LENGTH = 0.01  # largest relative difference of an embedding's length
_SAME = 1e-5  # relative difference below which embeddings count as equal
_SHOWN = 200  # characters of a runtime's message
_COARSE = 8  # random values along each side of a random crop, which is smooth like a face


@dataclass(frozen=True)
class TeacherCheck:
    """The result of the check.

    Attributes:
        crops: number of crops.
        cosine: the lowest of all crops.
        least: the lowest cosine allowed.
        reference: what the graph was compared with.
        problem: what differs, where, and what to do; empty if nothing differs.
    """

    crops: int
    cosine: float
    least: float
    reference: str
    problem: str = ""

    def describe(self) -> str:
        """The result in one line."""
        return f"teacher checked: {self.crops} crops, cosine {self.cosine:.5f} to {self.reference}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json."""
        return asdict(self)


def check_teacher(
    given: str | Path | nn.Module | FaceModel,
    model: FaceModel,
    faces: npt.NDArray[np.uint8] | None = None,
) -> TeacherCheck | None:
    """Like :func:`compare_with_source`, but raises if graph and source differ.

    Raises:
        ImportMismatchError: the graph gives other embeddings than the source.
        ModelFileError, NotRunnableError: as :func:`compare_with_source`.
    """
    found = compare_with_source(given, model, faces)
    if found is not None and found.problem:
        raise ImportMismatchError(found.problem)
    return found


def compared(
    given: str | Path | nn.Module | FaceModel,
    model: FaceModel,
    faces: npt.NDArray[np.uint8] | None = None,
) -> list[str]:
    """The result of :func:`check_teacher` as lines to print, or why the source does not run."""
    try:
        found = check_teacher(given, model, faces)
    except NotRunnableError as error:
        return [f"teacher not checked: {error}"]
    return [] if found is None else [found.describe()]


def compare_with_source(
    given: str | Path | nn.Module | FaceModel,
    model: FaceModel,
    faces: npt.NDArray[np.uint8] | None = None,
) -> TeacherCheck | None:
    """Compare the graph with its source, on crops.

    Args:
        given: the teacher as the user gave it.
        model: the loaded teacher.
        faces: uint8 RGB crops (N,H,W,3), of which 16 are taken; if they are fewer, random crops are
            added.

    Returns:
        The result; None if nothing can run the source (dlib's file, a student, a :class:`FaceModel`
        that was loaded elsewhere).

    Raises:
        NotRunnableError: ONNX Runtime or PyTorch cannot run the source.
        ModelFileError: the source gives values that are not finite, or the same embedding for
            every crop.
    """
    reference = reference_of(given, model)
    if reference is None:
        return None
    crops = _crops(faces, model.contract)
    x = model.contract.normalize(crops)
    there = _embeddings(reference, x)
    _check_alive(reference, there, crops)
    here = model.embed_pixels(torch.from_numpy(model.contract.pixels(crops))).numpy()
    cosines, lengths = _cosines(there, here)
    least = HALF_COSINE if reference.half else COSINE
    found = TeacherCheck(len(crops), float(cosines.min()), least, reference.what)
    if found.cosine >= least and np.abs(lengths - 1).max() <= _LENGTH:
        return found
    off = f"cosine {found.cosine:.4f} to {found.reference}"
    if found.cosine >= least:
        off = f"{lengths.min():.3f} to {lengths.max():.3f} times as long"
    worst = x[[cosines.argmin()]]
    problem = (
        f"{reference.name}: the imported graph gives other embeddings ({off}); "
        f"{_where(reference, worst)}. {_way_out(reference, worst)}"
    )
    return replace(found, problem=problem)


def _embeddings(reference: Reference, x: Float32) -> Float32:
    try:
        return reference.run(x)
    except Exception as error:  # onnxruntime and users' modules raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:_SHOWN]
        raise NotRunnableError(
            f"{reference.name}: does not run by itself ({reason}), so nothing can be compared "
            "with it; efq export FILE --float writes a form of an ONNX file that runs"
        ) from None


def _check_alive(reference: Reference, there: Float32, crops: npt.NDArray[np.uint8]) -> None:
    """Check that the embeddings are finite, and not the same for all crops."""
    bad = ~np.isfinite(there).all(axis=1)
    if bad.any():
        why = ", as half precision ends at 65504; give the float32 file" if reference.half else ""
        raise ModelFileError(
            f"{reference.name}: the embedding is not finite for {bad.sum()} of {len(there)} crops"
            f"{why or '; export it again from weights that are finite'}"
        )
    pixels = np.ascontiguousarray(crops.transpose(0, 3, 1, 2), np.float32)
    # wrong preprocessing may make embeddings equal, too; another check finds that
    if np.ptp(crops, axis=0).any() and _alike(there) and _alike(_embeddings(reference, pixels)):
        raise ModelFileError(
            f"{reference.name}: the embedding does not depend on the crop ({len(there)} crops, all "
            "the same); is it a trained network, and is its output the embedding?"
        )


def _alike(embeddings: Float32) -> bool:
    """Whether all rows are the same up to rounding."""
    spread = np.abs(embeddings - embeddings.mean(axis=0)).max()
    return bool(spread <= _SAME * np.abs(embeddings).max())


def _where(reference: Reference, x: Float32) -> str:
    first = first_difference(reference, x)
    if first is None:
        return "each of its tensors agrees, they differ once layers are folded"
    return (
        f"the first tensor that differs is {first.tensor!r}, of {first.maker} "
        f"(relative difference {first.size:.2g})"
    )


def _way_out(reference: Reference, x: Float32) -> str:
    trained = reference.trained()
    if trained:
        return (
            f"It was exported in training mode ({trained}); call model.eval() before "
            "torch.onnx.export, without training=, and give the new file"
        )
    if not np.array_equal(reference.run(x), reference.run(x)):
        return (
            "It gives another embedding each time for the same crop (dropout?); switch that off "
            "for inference"
        )
    return (
        "That is a fault of efquantface, not yours: please report it with the operator's name. "
        "Giving the network as an nn.Module with its contract may work"
    )


def _crops(faces: npt.NDArray[np.uint8] | None, contract: FaceContract) -> npt.NDArray[np.uint8]:
    """``CROPS`` of the faces, the same in each call; random smooth crops are added if needed."""
    rng = np.random.default_rng(25)
    few: list[npt.NDArray[np.uint8]] = []
    if faces is not None:
        few = list(faces[np.sort(rng.permutation(len(faces))[:CROPS])])
    size = (contract.width, contract.height)
    coarse = rng.integers(0, 256, (CROPS - len(few), _COARSE, _COARSE, 3), np.uint8)
    made = [np.asarray(Image.fromarray(c).resize(size, Image.Resampling.BICUBIC)) for c in coarse]
    return np.stack([*few, *made])


def _cosines(
    there: Float32, here: Float32
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Cosine of each pair of rows (N,D), and the length of the second over the first, each (N,).

    Rows of zeros have cosine 0 to others, and 1 to each other.
    """
    a, b = there.astype(np.float64), here.astype(np.float64)
    first, second = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both = (first == 0) & (second == 0)
    cosines = (a * b).sum(axis=1) / np.maximum(first * second, 1e-60)
    return np.where(both, 1.0, cosines), np.where(both, 1.0, second / np.maximum(first, 1e-30))
