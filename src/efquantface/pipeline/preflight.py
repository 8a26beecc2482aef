"""Checks a teacher before the work begins: its notes, its preprocessing, its embedding size."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from efquantface.console import Console
from efquantface.contract import ASSUMED, PREPROCESS
from efquantface.data.faces import FaceSet
from efquantface.embedding.embedder import Embedder
from efquantface.errors import EfqError, NotRecognizingError, PreprocessError
from efquantface.evaluation.metrics import area_under_roc
from efquantface.graph.model import FaceModel
from efquantface.importers.looks import no_embedding
from efquantface.importers.onnx.proto import LEAST_EMBEDDING
from efquantface.rows import unit

AS_FOUND = "as found"
_IMAGES = 160
_HARDLY = 0.8  # AUC; below it a network does not recognize faces
_LEAST, _LEAST_MIRRORED = 2e-4, 1e-2  # difference of AUC by which another preprocessing must win
_ALIKE = 2e-3  # difference of AUC that mirror images do not tell: RGB and BGR, for example
_UNSURE = ". Faces without labels do not tell RGB from BGR; look that up"
_EACH = 4  # images of a person
_GENUINE, _PEOPLE = 20, 8  # genuine pairs and people; with fewer, labels say little


def model_digest(model: FaceModel) -> str:
    """SHA-256 of all weights and the contract, in hex: the key of cached embeddings."""
    digest = hashlib.sha256(model.contract.to_json().encode())
    for name, value in sorted(model.graph.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()


def say_notes(model: FaceModel, console: Console) -> None:
    """Print the teacher's name, size, contract and notes."""
    console.log(
        f"teacher: {model.name}, {model.parameters:,} parameters, {model.contract.describe()}"
    )
    for note in model.notes:
        console.log(f"  {note}")


def check_preprocessing(
    model: FaceModel, faces: FaceSet, console: Console, anyway: bool = False
) -> None:
    """Stop if the teacher's preprocessing is wrong, or if the teacher does not tell people apart.

    An *assumed* preprocessing is compared with the other usual ones, by how well genuine and impostor
    pairs are separated. A known one is not compared. With identities the teacher must also tell people
    apart.

    Args:
        model: the teacher.
        faces: the user's faces.
        console: for log and warnings.
        anyway: warn instead of stopping.

    Raises:
        PreprocessError: another preprocessing separates people clearly better than the assumed one.
        NotRecognizingError: no preprocessing separates people (AUC below 0.8).
    """
    assumed = model.contract.source.startswith(ASSUMED)
    first, *more = _samples(faces, _IMAGES)
    if not (assumed or first.labelled):
        return
    embedder = _open(model)
    scores = _separations(embedder, first, (AS_FOUND,))
    if assumed or scores[AS_FOUND] < _HARDLY:
        scores = _separations(embedder, first)
    listed = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    best = _best(scores, first)
    if assumed:
        console.log(f"preprocessing assumed: separation (AUC) {listed}")
    if first.labelled and scores[best] < _HARDLY:
        problem = (
            f"{model.name}: tells people apart under no known preprocessing (AUC {listed}). Is "
            "it a trained face-recognition network, are the crops aligned, is each folder one person? "
            "--anyway goes on"
        )
        _stop(NotRecognizingError(problem), console, anyway)
    elif (
        assumed
        and _clearly(scores, best, first)
        and all(_clearly(_separations(embedder, s, (AS_FOUND, best)), best, s) for s in more)
    ):
        problem = (
            f"{model.name}: the preprocessing {best!r} separates people clearly better than the "
            f"assumed one (AUC {listed}). Add --preprocess {best}; if you know the right one, name "
            f"that{'' if first.labelled else _UNSURE}"
        )
        _stop(PreprocessError(problem), console, anyway)
    elif scores[AS_FOUND] < _HARDLY and first.labelled:
        console.warn(
            f"{model.name}: hardly tells people apart with its preprocessing ({model.contract.source}); "
            f"{best!r} does better (AUC {listed})"
        )


def check_embedding(model: FaceModel, console: Console, anyway: bool = False) -> None:
    """Stop if the network's output has not the size of an embedding.

    Args:
        model: the teacher.
        console: for the warning.
        anyway: warn instead of stopping, if the output has 16 values or more.

    Raises:
        NotRecognizingError: the output is no embedding; the message says what it looks like.
    """
    values = model.contract.embedding_size
    problem = no_embedding(values)
    if problem is not None:
        few = values < LEAST_EMBEDDING
        way_on = "" if few else ". --anyway goes on"
        error = NotRecognizingError(f"{model.name}: {problem}{way_on}")
        _stop(error, console, anyway and not few)


def better_reading(model: FaceModel, faces: FaceSet, console: Console) -> str | None:
    """The best preprocessing of those in ``model.readings``, by how well it separates people.

    Networks with the same names of tensors come with different preprocessings. All are tried on the
    faces, and the result is printed.

    Args:
        model: with the first of its readings.
        faces: the user's faces.
        console: for the log.

    Returns:
        The name of the best one; None if that is the first, or there is one only.
    """
    first, *others = model.readings or ("",)
    if not others:
        return None
    embedder = _open(model)
    samples = _samples(faces, _IMAGES)
    scores = [_separations(embedder, sample, (AS_FOUND, *others)) for sample in samples]
    best = max(others, key=lambda name: scores[0][name])
    least = _LEAST if samples[0].labelled else _LEAST_MIRRORED
    wins = all(found[best] - found[AS_FOUND] > least for found in scores)
    listed = ", ".join(f"{first if n == AS_FOUND else n} {v:.4f}" for n, v in scores[0].items())
    why = "" if samples[0].labelled else _UNSURE
    console.log(
        f"networks of these names differ in preprocessing: {best if wins else first} chosen (AUC "
        f"{listed}){why}"
    )
    return best if wins else None


def _stop(error: EfqError, console: Console, anyway: bool) -> None:
    if not anyway:
        raise error
    console.warn(f"{error}; going on anyway")


def separations(model: FaceModel, faces: FaceSet, images: int = _IMAGES) -> dict[str, float]:
    """AUC of same against different pairs under each preprocessing of the field, by its name.

    The model's own is called ``AS_FOUND``, and not tried again under another name. Same pairs are two
    images of one identity, or an image and its mirror image where there are no identities.
    """
    return _separations(_open(model), _samples(faces, images)[0])


def _open(model: FaceModel) -> Embedder:
    return Embedder.open(model, backend="onnxruntime", threads=torch.get_num_threads())


@dataclass(frozen=True)
class _Sample:
    """Crops to compare with each other.

    Attributes:
        same: which pairs are of one person (N,N); None where crops are compared with mirror images.
    """

    images: npt.NDArray[np.uint8]
    same: npt.NDArray[np.bool_] | None

    @property
    def labelled(self) -> bool:
        return self.same is not None


def _samples(faces: FaceSet, size: int) -> list[_Sample]:
    """One sample, or two of different faces if there are enough.

    People are in random order, with at most 4 images each at first, so that a sample has many people.
    People with a single image come last.
    """
    rng = np.random.default_rng(60)
    order = rng.permutation(len(faces))
    if faces.has_identities:
        people = faces.identities[order]
        alone = np.bincount(people)[people] == 1
        place = rng.permutation(int(people.max()) + 1)[people]
        order = order[np.lexsort((place, _occurrence(people) // _EACH, alone))]
    parts = [order[:size], order[size : 2 * size]]
    return [_sample(faces, part) for part in parts if len(part) == size or part is parts[0]]


def _occurrence(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each value (N,), how often it occurred at earlier positions."""
    order = np.argsort(values, kind="stable")
    found = np.empty(len(values), np.int64)
    starts = np.flatnonzero(np.diff(values[order], prepend=values[order[:1]] - 1))
    counts = np.diff(np.append(starts, len(values)))
    found[order] = np.arange(len(values)) - np.repeat(starts, counts)
    return found


def _sample(faces: FaceSet, picked: npt.NDArray[np.int64]) -> _Sample:
    if not faces.has_identities:
        return _Sample(faces.images[picked], None)
    people = faces.identities[picked]
    same = people[:, None] == people[None]
    upper = np.triu(np.ones(same.shape, bool), 1)
    enough = (same & upper).sum() >= _GENUINE and len(np.unique(people)) >= _PEOPLE
    return _Sample(faces.images[picked], same if enough else None)


def _separations(
    embedder: Embedder, sample: _Sample, names: Container[str] | None = None
) -> dict[str, float]:
    """AUC by preprocessing, or only of those in ``names``."""
    contract = embedder.contract
    variants = {AS_FOUND: contract} | {
        name: contract.with_preprocess(name)
        for name, values in PREPROCESS.items()
        if values != (contract.color, contract.mean, contract.std)
    }
    return {
        name: _separation(replace(embedder, contract=variant), sample)
        for name, variant in variants.items()
        if names is None or name in names
    }


def _best(scores: dict[str, float], sample: _Sample) -> str:
    """The name with the highest score. Of scores that mirror images do not tell apart, the first."""
    top = max(scores.values()) - (0 if sample.labelled else _ALIKE)
    return next(name for name, value in scores.items() if value >= top)


def _clearly(scores: dict[str, float], best: str, sample: _Sample) -> bool:
    """Whether another preprocessing wins clearly: it halves the ranking errors.

    Without labels it must win by more, because any network tells mirror images from other faces.
    """
    least = _LEAST if sample.labelled else _LEAST_MIRRORED
    as_found, other = scores[AS_FOUND], scores[best]
    return 1 - other < 0.5 * (1 - as_found) and other - as_found > least


def _separation(trial: Embedder, sample: _Sample) -> float:
    """AUC of genuine against impostor pairs, or of mirror images against others without labels."""
    first = unit(trial.embed(sample.images))
    if sample.same is not None:
        scores = first @ first.T
        upper = np.triu(np.ones(scores.shape, bool), 1)
        return area_under_roc(scores[sample.same & upper], scores[~sample.same & upper])
    scores = first @ unit(trial.embed(sample.images[:, :, ::-1])).T
    diagonal = np.eye(len(scores), dtype=bool)
    return area_under_roc(scores[diagonal], scores[~diagonal])
