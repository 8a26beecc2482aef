"""Templates pooled by loops, the reference of two tests."""

from __future__ import annotations

import numpy as np


def pooled_by_loops(
    rows: np.ndarray, templates: np.ndarray, media: np.ndarray, weights: np.ndarray, flags: str
) -> np.ndarray:
    out = []
    values = rows if flags[1] == "1" else rows / np.linalg.norm(rows, axis=1, keepdims=True)
    if flags[3] == "1":
        values = values * weights[:, None]
    for template in sorted(set(templates.tolist())):
        total = np.zeros(rows.shape[1])
        for medium in sorted(set(media[templates == template].tolist())):
            total += values[(templates == template) & (media == medium)].mean(axis=0)
        out.append(total / np.linalg.norm(total))
    return np.array(out)
