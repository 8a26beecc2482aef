"""Templates (IJB): all crops of a person in one place, pooled to one vector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from efquantface.errors import EvaluationError, RecipeError
from efquantface.rows import unit

_BLOCK = 200_000  # pairs scored at a time


@dataclass(frozen=True)
class TemplateFlags:
    """InsightFace's three flags, shown beside every number: they change IJB-C's by up to 0.6 points.

    Attributes:
        norm: N, embeddings of crops keep their length; otherwise they are normalized first.
        detector: D, crops are weighted by the face detector's confidence.
        flip: F, the mirror image's embedding is added.
    """

    norm: bool = True
    detector: bool = True
    flip: bool = True

    @classmethod
    def parse(cls, text: str) -> TemplateFlags:
        """Read ``N1D1F0``.

        Raises:
            RecipeError: the text has another form.
        """
        upper = text.upper()
        if len(upper) != 6 or upper[0::2] != "NDF" or not set(upper[1::2]) <= {"0", "1"}:
            raise RecipeError(f"template flags {text!r}: write N1D1F1, each digit 0 or 1")
        return cls(*(digit == "1" for digit in upper[1::2]))

    def __str__(self) -> str:
        return f"N{self.norm:d}D{self.detector:d}F{self.flip:d}"


class TemplatePool:
    """Pools a stream of crops: media are averaged, a template is the normalized sum of its media.

    Memory holds one vector per medium, however many crops there are.
    """

    def __init__(
        self,
        templates: npt.NDArray[np.int64],
        media: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32] | None,
        flags: TemplateFlags,
    ) -> None:
        """Prepare for crops in this order.

        Args:
            templates, media: (N,) template and medium (photo or video) of each crop.
            weights: (N,) the detector's confidences, used with the flag D.
        """
        pairs = np.stack([templates, media], axis=1)
        groups, self.group = np.unique(pairs, axis=0, return_inverse=True)
        self.group = self.group.reshape(-1)
        self.counts = np.bincount(self.group).astype(np.float32)
        self.ids, self.owner = np.unique(groups[:, 0], return_inverse=True)
        self.weights = weights if flags.detector else None
        self.flags = flags
        self.sums: npt.NDArray[np.float32] | None = None
        self.done = 0

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Add the embeddings (K,D) of the next K crops.

        Raises:
            EvaluationError: one is not finite or has length zero.
        """
        where = slice(self.done, self.done + len(rows))
        normalized = unit(rows, f"crops from {self.done} on")
        values = rows if self.flags.norm else normalized
        if self.weights is not None:
            values = values * self.weights[where, None]
        if self.sums is None:
            self.sums = np.zeros((len(self.counts), rows.shape[1]), np.float32)
        np.add.at(self.sums, self.group[where], values)
        self.done += len(rows)

    def templates(self) -> npt.NDArray[np.float32]:
        """Vectors (T,D) of length 1, in the order of :attr:`ids`.

        Raises:
            EvaluationError: crops are missing, or a template has length zero.
        """
        if self.sums is None or self.done != len(self.group):
            raise EvaluationError(f"{self.done} of {len(self.group)} crops were embedded")
        pooled = np.zeros((len(self.ids), self.sums.shape[1]), np.float32)
        np.add.at(pooled, self.owner, self.sums / self.counts[:, None])
        return unit(pooled, "templates")


def score_template_pairs(
    first: npt.NDArray[np.float32],
    second: npt.NDArray[np.float32],
    a: npt.NDArray[np.int64],
    b: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Cosines float32 (P,) of template pairs, in blocks.

    Args:
        first, second: templates (T,D) of length 1, for side a and side b.
        a, b: (P,) indices into them.
    """
    scores = np.empty(len(a), np.float32)
    for start in range(0, len(a), _BLOCK):
        where = slice(start, start + _BLOCK)
        scores[where] = np.einsum("ij,ij->i", first[a[where]], second[b[where]])
    return scores
