"""Embeddings of people that are made to be told apart."""

from __future__ import annotations

import numpy as np


def people(count: int, each: int, seed: int = 0, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, 1, size))
    rows = (centres + 0.6 * rng.normal(size=(count, each, size))).reshape(-1, size)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), np.repeat(np.arange(count), each)
