"""The cosine that strangers have in a teacher's embeddings, and embeddings centred to remove it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from efquantface.interfaces import Rows as Looked
from efquantface.rows import unit

Rows = npt.NDArray[np.float32]
_PAIRS = 20_000
_FEW = 0.1  # quantile of random pairs: most of them are strangers, even among few people
_ALIKE = 0.5  # cosine


def strangers(rows: Looked) -> float:
    """The usual cosine of strangers, for networks where it is high; 0 for others.

    Most networks give strangers cosines around zero. A network trained on distances may put all faces
    into one corner of the sphere: with dlib's, strangers have a cosine of 0.83. A margin in cosines is
    then a share of what is left up to 1.

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
    """Rows (N,D) of length 1 of one or several sets, less their common mean, scaled to length 1 again.

    They are unchanged where :func:`strangers` is 0.
    """
    together = np.concatenate([rows, *others])  # one set may hold one person only
    if not strangers(together):
        return (rows, *others)
    mean = together.mean(axis=0)
    return tuple(unit(r - mean, strict=False) for r in (rows, *others))
