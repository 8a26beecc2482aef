"""LFW's crops as scripts take them, and how near embeddings of them come to others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from efquantface.contract import FaceContract
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.metrics import fold_accuracy, supported_fars, tar_at_far
from efquantface.evaluation.protocols.pairs import pair_scores
from efquantface.evaluation.sets import EvalSet, Pairs
from efquantface.export.emulate import emulate
from efquantface.graph.model import FaceModel
from efquantface.rows import cosines as row_cosines
from efquantface.rows import unit

REFERENCE = 64  # crops that are computed in integers
FAR = 1e-3

Floats = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Crops:
    """Crops (N,H,W,3) in the order of the pairs, so that a beginning holds pairs."""

    images: Images
    pairs: Pairs

    def measures(self, embeddings: Floats) -> dict[str, float]:
        """Accuracy, and TAR where enough impostors stand behind it; of fewer crops nothing."""
        if len(embeddings) < len(self.images):
            return {}
        inside = np.maximum(self.pairs.a, self.pairs.b) < len(embeddings)
        kept = Pairs(*(getattr(self.pairs, k)[inside] for k in ("a", "b", "same", "folds")))
        lengths_one = unit(embeddings)
        scores = pair_scores(lengths_one, lengths_one, kept)
        found = {"accuracy": fold_accuracy(scores, kept.same, kept.folds).mean}
        impostor = scores[~kept.same]
        if FAR in supported_fars(len(impostor)):
            found["tar"] = tar_at_far(scores[kept.same], impostor, FAR).tar
        return found


def lfw_crops(folder: Path, contract: FaceContract, count: int | None) -> Crops:
    """Crops in the order in which the pairs need them; the pairs are taken from all folds alike."""
    (people,) = load_eval(f"lfw={folder}", contract)
    assert isinstance(people, EvalSet)
    assert people.pairs is not None
    pairs = people.pairs
    mixed = np.random.default_rng(0).permutation(len(pairs.a))
    both = np.stack([pairs.a, pairs.b], axis=1)[mixed].ravel()
    order = both[np.sort(np.unique(both, return_index=True)[1])]
    place = np.empty(len(people.faces.images), np.int64)
    place[order] = np.arange(len(order))
    moved = Pairs(place[pairs.a], place[pairs.b], pairs.same, pairs.folds)
    return Crops(people.faces.images[order[:count]], moved)


def in_integers(student: FaceModel, images: Images) -> Floats:
    """Embeddings of the first crops, computed in integers."""
    pixels = torch.from_numpy(student.contract.pixels(images[:REFERENCE]))
    return np.asarray(emulate(student, pixels))


def cosines(a: Floats, b: Floats) -> list[float]:
    """Mean and least cosine of the rows that both have."""
    count = min(len(a), len(b))
    a, b = a[:count].astype(np.float64), b[:count].astype(np.float64)
    each = row_cosines(a, b)
    return [float(each.mean()), float(each.min())]
