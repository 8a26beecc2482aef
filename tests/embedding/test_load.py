"""One embedder shared by threads, and one file by processes: every caller gets its own crops' rows."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from conftest import SIZE, SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.export.onnx_writer import write_onnx
from students import student_of

CALLS = [(start, count) for start in range(0, 40, 3) for count in (1, 2, 7, 8)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    contract = FaceContract(height=SIZE, width=SIZE, embedding_size=16, template="unknown")
    write_onnx(student_of(randomize(SmallFaceNet()), contract)[1], tmp_path / "student.onnx")
    return tmp_path / "student.onnx"


def called(path: Path) -> list[np.ndarray]:
    """The rows of all calls, from 8 threads that share an embedder."""
    embedder, images = Embedder.open(path, threads=1), make_faces().images
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda call: embedder.embed(images[call[0] :][: call[1]]), CALLS * 3))


def test_threads_and_processes_get_their_own_rows(path: Path) -> None:
    whole = Embedder.open(path, threads=1).embed(make_faces().images)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        others = [pool.submit(called, path) for _ in range(2)]
        found = [called(path), *(other.result() for other in others)]
    for rows in found:
        for (start, count), own in zip(CALLS * 3, rows, strict=True):
            np.testing.assert_array_equal(own, whole[start : start + count])
