"""The order of training images: batches of identities x images, every image once an epoch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from efquantface.data.strangers import centred
from efquantface.distill.settings import TrainData, TrainSettings
from efquantface.errors import TrainingError
from efquantface.rows import unit

_BLOCK = 2048
_LARGEST = 200_000  # unlabelled images, at most: all are compared with each other


class Batches:
    """The images of each step. They depend only on settings, seed and step."""

    def __init__(
        self,
        data: TrainData,
        settings: TrainSettings,
        seed: int = 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.data, self.settings, self.seed, self.say = data, settings, seed, say
        self.size = min(settings.batch_size, len(data.pixels))
        self.an_epoch = max(len(data.pixels) // self.size, 1)
        self._pseudo: npt.NDArray[np.int64] | None = None
        self._epoch: tuple[int, npt.NDArray[np.int64], npt.NDArray[np.bool_]] | None = None

    def identities(self) -> npt.NDArray[np.int64]:
        """Identities (N,) of the training images; if unknown, of :func:`pseudo_identities`.

        Raises:
            TrainingError: there are too many images without identities.
        """
        known = self.data.identities
        if known is not None and bool((known >= 0).all()):
            return known
        if self._pseudo is None:
            images = len(self.data.plain)
            if images > _LARGEST:
                raise TrainingError(
                    f"{images:,} images without identities are too many for a metric loss, which "
                    "then compares all of them; give images with identities, or --metric none"
                )
            self._pseudo = pseudo_identities(self.data.plain[np.arange(images)])
            self.say(
                "no identities: positives are mirror images, an image an epoch before, and near-"
                f"duplicates of the teacher ({len(np.unique(self._pseudo)):,} different images)"
            )
        return self._pseudo

    def order(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The order (N,) of an epoch's images, and a mask (N,), by image, of the mirrored ones."""
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, *self._shuffled(epoch))
        return self._epoch[1:]

    def _shuffled(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        rng = np.random.default_rng([self.seed, 30, epoch])
        count = len(self.data.pixels)
        if self.settings.metric == "none":
            order = rng.permutation(count)
        else:
            order = identity_order(self.identities(), self.settings.images_per_identity, rng)
        return order, rng.random(count) < 0.5

    def at(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Indices (B,) of a step's images, and a mask (B,) of the mirrored ones."""
        epoch, position = divmod(step, self.an_epoch)
        order, flips = self.order(epoch)
        index = order[position * self.size : (position + 1) * self.size]
        return index, flips[index]


def identity_order(
    identities: npt.NDArray[np.int64], images_each: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """A permutation (N,) with the images of one identity in groups of ``images_each``.

    Cut into batches it gives identities x images, without replacement. Every image occurs once. People
    with fewer images are one smaller group; people with hundreds are many groups.

    Args:
        identities: (N,).
        images_each: images of a group, at least 1.
        rng: of the order.
    """
    order = rng.permutation(len(identities))
    order = order[np.argsort(identities[order], kind="stable")]
    sorted_ids = identities[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_ids[1:] != sorted_ids[:-1]]))
    sizes = np.diff(np.append(starts, len(order)))
    within = np.arange(len(order)) - np.repeat(starts, sizes)
    first = within % images_each == 0
    groups = np.cumsum(first) - 1
    places = rng.permutation(int(groups[-1]) + 1)
    return order[np.argsort(places[groups], kind="stable")]


def pseudo_identities(
    teacher: npt.NDArray[np.float32], threshold: float = 0.9
) -> npt.NDArray[np.int64]:
    """Identities (N,) of unlabelled images: near-duplicates by the teacher's embeddings share a number.

    Every other image has a number of its own. Its positives are its mirror image and the same image an
    epoch before. If strangers are alike to the teacher, embeddings are centred first.

    Args:
        teacher: embeddings (N,D).
        threshold: cosine at and above which two images are near-duplicates.
    """
    (rows,) = centred(unit(teacher, "teacher embeddings"))
    parent = np.arange(len(rows), dtype=np.int64)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for start in range(0, len(rows), _BLOCK):
        scores = rows[start : start + _BLOCK] @ rows.T
        for a, b in np.argwhere(scores >= threshold):
            first, second = root(start + int(a)), root(int(b))
            if first != second:
                parent[max(first, second)] = min(first, second)
    return np.array([root(i) for i in range(len(rows))], np.int64)
