"""What a run's files cost beside its teacher's, measured in turns on one thread."""

from __future__ import annotations

import tempfile
from pathlib import Path

from efquantface.embedding.benchmark import benchmark
from efquantface.embedding.embedder import Embedder
from efquantface.export.onnx_writer import write_onnx
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.runtime.environment import environment

USERS = "user's file"
_ROUNDS = 30


def measured(teacher: FaceModel, run: Path, own: Path | None = None) -> dict:
    """Timings of both runtimes (batch 1 and 16), and the processor, as a row keeps them.

    The student stands beside the teacher's best float form in the same runtime; with ``own`` also
    beside that file, the user's.
    """
    student = load_model(run / "student.safetensors")
    ir = run / "student.xml"
    if student.quantized:
        deliver(student, FORMATS["openvino"], ir)
    openvino = ir if student.quantized else run / "student.onnx"
    with tempfile.TemporaryDirectory() as folder:
        fast = Path(folder) / "teacher.onnx"
        write_onnx(teacher, fast)
        models = [
            ("teacher", Embedder.open(fast, threads=1)),
            ("student", Embedder.open(run / "student.onnx", threads=1)),
            ("teacher, OpenVINO", Embedder.open(fast, backend="openvino", threads=1)),
            ("student, OpenVINO", Embedder.open(openvino, backend="openvino", threads=1)),
        ]
        if own is not None:
            contract = teacher.contract
            models.append((USERS, Embedder.open(own, contract=contract, threads=1)))
    env = environment()
    return {
        "speed": [vars(t) for t in benchmark(models, rounds=_ROUNDS)],
        "processor": f"{env['processor']} ({', '.join(env['instruction_sets'])})",
    }
