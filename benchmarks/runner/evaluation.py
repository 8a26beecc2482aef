"""An exported file on held-out sets, opened in a plain session as any client opens it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from efquantface.assets import file_sha256
from efquantface.contract import FaceContract
from efquantface.embedding.cache import EmbeddingCache
from efquantface.embedding.embedder import Embedder
from efquantface.errors import EvaluationError
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.result import Metric, ProtocolResult
from efquantface.evaluation.run import evaluate_set
from efquantface.evaluation.sets import EvalSet
from efquantface.graph.model import FaceModel
from efquantface.runtime.sessions import run_onnxruntime

Rows = npt.NDArray[np.float32]

# metric of a row: (its protocol's ending, its name there)
METRICS = {
    "accuracy": (" pairs", "accuracy"),
    "1e-3 pairs": (" pairs", "TAR@FAR=0.001"),
    "1e-3": (" all pairs", "TAR@FAR=0.001"),
    "1e-4": (" all pairs", "TAR@FAR=0.0001"),
    "1e-5": (" all pairs", "TAR@FAR=1e-05"),
    "1e-6": (" all pairs", "TAR@FAR=1e-06"),
}


def plain(path: Path, contract: FaceContract, threads: int | None) -> Embedder:
    """A file in a session with no option but the threads; warnings are not printed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Embedder(contract, path.name, "onnxruntime", run_onnxruntime(session), path)


def opened(file: Path, contract: FaceContract, threads: int | None) -> Embedder:
    """An ONNX file in a plain session; another runtime's as the package opens it."""
    if file.suffix == ".onnx":
        return plain(file, contract, threads)
    return Embedder.open(file, contract=contract, threads=threads)


def evaluated(
    student: Embedder, teacher: FaceModel, sets: Mapping[str, str], threads: int | None
) -> dict[str, Any]:
    """What a row keeps of each set.

    Args:
        student: the exported file, or a network in PyTorch.
        teacher: its own file is what the student is compared with, where it has one.
        sets: what ``--eval`` takes, by the row's name for it (``lfw``, ``judge``).

    Raises:
        EvaluationError: a set that holds no people.
    """
    source = teacher.source
    if source is not None and Path(source).suffix == ".onnx":
        own = plain(Path(source), teacher.contract, threads)
        key = file_sha256(Path(source))
    else:
        own = Embedder.open(teacher, backend="onnxruntime", threads=threads)
        key = f"float form of {file_sha256(Path(source)) if source else teacher.name}"
    found = {}
    for name, text in sets.items():
        (item,) = load_eval(text, teacher.contract)
        if not isinstance(item, EvalSet):
            raise EvaluationError(f"{text}: a row needs people, or pairs of them")
        images = item.faces.images
        wanted = EmbeddingCache(own, f"{key} plain {ort.__version__}").embed(images)
        results = evaluate_set(item, wanted, student.embed(images))
        found[name] = {"set": text.partition("=")[2].rpartition("/")[2], **summary(results)}
    return found


def place(folder: Path) -> str:
    """A folder as ``--eval`` takes it: with a list of pairs, or people whose pairs are all scored."""
    listed = (folder / "pairs.txt").is_file()
    return f"{folder.name if listed else 'folder'}={folder}"


def summary(results: list[ProtocolResult]) -> dict[str, Any]:
    """Flags, pairs, cosine and metrics of a set's protocols, as a row keeps them."""
    found: dict[str, Any] = {"flags": results[0].flags, "pairs": None, "cosine": None}
    for result in results:
        every = result.protocol.endswith(" all pairs")
        if every or found["pairs"] is None:
            found["pairs"] = [result.counts["genuine"], result.counts["impostor"]]
        named = {metric.name: metric for metric in result.metrics}
        if "cosine to teacher" in named:
            found["cosine"] = named["cosine to teacher"].student
        for key, (ending, name) in METRICS.items():
            mine = every == (ending == " all pairs")
            if mine and name in named:
                found[key] = _numbers(named[name])
    return found


def _numbers(metric: Metric) -> list[float | None]:
    low, high = metric.loss_interval or (None, None)
    return [metric.teacher, metric.student, metric.loss, low, high]
