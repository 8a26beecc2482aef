"""How alike a teacher finds strangers, and embeddings without what all faces share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.interfaces import Rows as Looked
from efquantface.rows import unit

Rows = npt.NDArray[np.float32]
_PAIRS = 20_000
_FEW = 0.1  # of random pairs: even few people are mostly strangers to each other
_ALIKE = 0.5


def strangers(rows: Looked) -> float:
    """The cosine of random pairs of faces where even the least alike have one; elsewhere 0.

    A network trained on distances may put all faces into one corner of the sphere: in dlib's, strangers
    have a cosine of 0.83, and whatever is said in cosines has to be a share of the rest. Most networks
    have cosines of strangers around zero.

    Args:
        rows: embeddings (N,D) of several people, any length.

    Returns:
        The median of the pairs' cosines where the tenth percentile is above 0.5, otherwise 0.0.
    """
    if len(rows) < 2:
        return 0.0
    rng = np.random.default_rng([len(rows), 16])
    a, b = rng.integers(0, len(rows), (2, _PAIRS))
    first, second = (unit(rows[index[a != b]], strict=False) for index in (a, b))
    cosines = np.einsum("ij,ij->i", first, second)
    return float(np.median(cosines)) if np.quantile(cosines, _FEW) > _ALIKE else 0.0


def centred(rows: Rows, *others: Rows) -> tuple[Rows, ...]:
    """Rows (N,D) of length 1, and those of other sets, less the mean of all and of length 1 again.

    They are left as they are where strangers have no cosine worth mentioning (:func:`strangers`).
    """
    together = np.concatenate([rows, *others])  # one person's images alone would say nothing
    if not strangers(together):
        return (rows, *others)
    mean = together.mean(axis=0)
    return tuple(unit(r - mean, strict=False) for r in (rows, *others))
