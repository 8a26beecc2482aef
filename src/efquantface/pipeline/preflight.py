"""What is checked about a teacher before work begins: its notes, its preprocessing, its identity."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from efquantface.console import Console
from efquantface.contract import ASSUMED, PREPROCESS, FaceContract
from efquantface.data.faces import FaceSet
from efquantface.embedding.embedder import Embedder
from efquantface.evaluation.metrics import area_under_roc
from efquantface.graph.model import FaceModel
from efquantface.rows import unit

AS_FOUND = "as found"
_IMAGES = 160
_HARDLY = 0.8  # AUC below which a network is not one that recognizes faces
_CLEARLY = 0.5  # another preprocessing wins clearly where it halves the ranking errors


def model_digest(model: FaceModel) -> str:
    """Digest of all weights and the contract, the key of cached embeddings."""
    digest = hashlib.sha256(model.contract.to_json().encode())
    for name, value in sorted(model.graph.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()


def say_notes(model: FaceModel, console: Console) -> None:
    """Print what was found out about the teacher."""
    console.log(
        f"teacher: {model.name}, {model.parameters:,} parameters, {model.contract.describe()}"
    )
    for note in model.notes:
        console.log(f"  {note}")


def check_preprocessing(model: FaceModel, faces: FaceSet, console: Console) -> str | None:
    """Try an *assumed* preprocessing against the field's others, on same and different pairs.

    Returns the name of a choice that separates clearly better (and warns), else None.
    """
    if not model.contract.source.startswith(ASSUMED):
        return None
    scores = separations(model, faces)
    assumed = scores.pop(AS_FOUND)
    best = max(scores, key=lambda name: scores[name])
    listed = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    console.log(f"preprocessing assumed: separation (AUC) {assumed:.4f}; others: {listed}")
    if 1 - scores[best] < _CLEARLY * (1 - assumed) - 1e-4:
        console.warn(
            f"the preprocessing {best!r} separates people clearly better than the assumed one; "
            f"run again with --preprocess {best} if you do not know better"
        )
        return best
    if max(assumed, scores[best]) < _HARDLY:
        console.warn(
            "under no known preprocessing does this network tell people apart; is it a trained "
            "face-recognition network, and are the crops aligned?"
        )
    return None


def separations(model: FaceModel, faces: FaceSet, images: int = _IMAGES) -> dict[str, float]:
    """AUC of same against different pairs under each preprocessing of the field, by its name.

    The model's own is called ``AS_FOUND``, and not tried again under another name. Same pairs are two
    images of one identity, or an image and its mirror image where there are no identities.
    """
    rng = np.random.default_rng(60)
    order = rng.permutation(len(faces))
    if faces.has_identities:  # keep people with several images together
        order = order[np.argsort(faces.identities[order], kind="stable")]
    return {
        name: _separation(model, variant, faces, order[:images])
        for name, variant in _variants(model.contract).items()
    }


def _variants(contract: FaceContract) -> dict[str, FaceContract]:
    return {
        AS_FOUND: contract,
        **{
            name: contract.with_preprocess(name)
            for name, values in PREPROCESS.items()
            if values != (contract.color, contract.mean, contract.std)
        },
    }


def _separation(
    model: FaceModel, variant: FaceContract, faces: FaceSet, picked: npt.NDArray[np.int64]
) -> float:
    """AUC of same against different pairs under another preprocessing.

    The graph holds the assumed normalization, so crops are normalized as the variant says and then
    mapped back to the pixels that the graph would have had to see.
    """
    embedder = Embedder.open(model)
    trial = replace(embedder, contract=variant)
    images = faces.images[picked]
    first = unit(trial.embed(images))
    if faces.has_identities:
        scores = first @ first.T
        same = faces.identities[picked][:, None] == faces.identities[picked][None]
        upper = np.triu(np.ones(scores.shape, bool), 1)
        genuine, impostor = scores[same & upper], scores[~same & upper]
        if len(genuine) >= 20 and len(impostor):
            return area_under_roc(genuine, impostor)
    mirrored = unit(trial.embed(images[:, :, ::-1]))
    scores = first @ mirrored.T
    diagonal = np.eye(len(scores), dtype=bool)
    return area_under_roc(scores[diagonal], scores[~diagonal])
