"""Milliseconds of a student's files beside its teacher's, in turns, on one thread."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from efquantface.embedding.benchmark import benchmark
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ParityError
from efquantface.export.onnx_writer import write_onnx
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.runtime.processor import in_words, lacks_vnni

RUNTIMES = ("onnxruntime", "openvino")
BATCHES = (1, 16)
ROUNDS = 30


def measured(teacher: FaceModel, student: Path, rounds: int = ROUNDS) -> dict[str, Any]:
    """``speed``, ``speed_on`` and ``speed_date`` of a row.

    Each runtime has the best float form of the teacher and the student in the placement made for it;
    ONNX Runtime also the teacher's own file.

    Args:
        student: a run's folder, or a peer's file (then in its own runtime only).
    """
    models: list[tuple[str, Embedder]] = []
    with tempfile.TemporaryDirectory() as folder:
        best = Path(folder) / "teacher.onnx"
        write_onnx(teacher, best)
        files = _files(student, Path(folder))
        for runtime, file in files.items():
            for who, path in (("float", best), ("student", file)):
                contract = teacher.contract
                opened = Embedder.open(path, backend=runtime, contract=contract, threads=1)
                models.append((f"{runtime} {who}", opened))
        source = teacher.source
        if "onnxruntime" in files and source is not None and Path(source).suffix == ".onnx":
            user = Embedder.open(source, contract=teacher.contract, threads=1)
            models.append(("onnxruntime user", user))
        timings = benchmark(models, batches=BATCHES, rounds=rounds)
    speed: dict[str, Any] = {}
    for timing in timings:
        runtime, _, who = timing.name.partition(" ")
        speed.setdefault(runtime, {}).setdefault(str(timing.batch), {})[who] = round(
            timing.median_ms, 4
        )
    return {"speed": speed, "speed_on": in_words(), "speed_date": time.strftime("%Y-%m-%d")}


def _files(student: Path, folder: Path) -> dict[str, Path]:
    """The student's file for each runtime."""
    if student.suffix == ".onnx":
        return {"onnxruntime": student}
    if student.suffix == ".xml":
        return {"openvino": student}
    model = load_model(student / "student.safetensors")
    files = {"onnxruntime": student / "student.onnx", "openvino": student / "student.onnx"}
    if model.quantized:
        files["openvino"] = folder / "student.xml"
        try:
            deliver(model, FORMATS["openvino"], files["openvino"])
        except ParityError as refused:
            if not lacks_vnni():  # there a student of full range would be wrong
                raise
            print(f"{student}: not in OpenVINO: {refused}")
            del files["openvino"]
    return files
