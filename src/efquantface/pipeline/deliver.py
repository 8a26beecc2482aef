"""From the trained student to the checked file: embedding length, export, parity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from efquantface.console import Console
from efquantface.embedding.embedder import Embedder
from efquantface.errors import WriteError
from efquantface.evaluation.run import length_ratio
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.parity import Parity, check_parity
from efquantface.files import move
from efquantface.graph.graph import module_of, output_node
from efquantface.graph.model import FaceModel
from efquantface.quantize.ending import rescale_embedding
from efquantface.quantize.placement import refresh_biases

_LENGTH_FACES = 256
_PARITY_FACES = 64

Faces = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]


def restore_length(student: FaceModel, faces: Faces, teacher: Rows) -> None:
    """Scale the last layer so that embeddings have the teacher's mean length.

    A network that ends with a norm or another function is not changed.

    Args:
        student: changed in place.
        faces: uint8 held-out crops (N,H,W,3).
        teacher: the teacher's embeddings (N,D) of them.
    """
    student.graph.cpu()
    faces, teacher = faces[:_LENGTH_FACES], teacher[:_LENGTH_FACES]
    ratio = length_ratio(teacher, Embedder.open(student).embed(faces))
    if student.quantized:
        if rescale_embedding(student.graph, 1 / ratio):
            refresh_biases(student.graph)
        return
    layer = module_of(student.graph, output_node(student.graph))
    if isinstance(layer, nn.Linear):
        with torch.no_grad():
            layer.weight.div_(ratio)
            layer.bias.div_(ratio)


def export_student(
    student: FaceModel,
    target: Path,
    faces: Faces,
    teacher: Rows,
    metadata: dict[str, str],
    console: Console,
) -> Parity:
    """Write the ONNX file and check its parity. It gets its name only after the check passes.

    Args:
        student: quantized, or float if it is only pruned.
        target: the path of the file.
        faces: uint8 held-out crops (N,H,W,3), of which at most 64 are compared.
        teacher: the teacher's embeddings (N,D) of them.
        metadata: stored in the file.
        console: for the log.

    Raises:
        ParityError: the file does not compute what the student computes.
        WriteError: the file cannot be written.
    """
    unchecked = target.with_suffix(".unchecked.onnx")
    write_onnx(student, unchecked, metadata)
    index = slice(None, None, max(len(faces) // _PARITY_FACES, 1))
    faces, teacher = faces[index][:_PARITY_FACES], teacher[index][:_PARITY_FACES]
    parity = check_parity(student, unchecked, faces, teacher)
    parity.check(unchecked)
    try:
        move(unchecked, target)
    except WriteError:
        unchecked.unlink(missing_ok=True)
        raise
    if student.quantized:
        console.log(
            f"parity passed: {len(parity.layers)} layers equal to within a code, cosine "
            f"{parity.cosine:.5f} to the student in integers"
        )
        console.log(parity.executed.describe())
        (console.log if parity.portable else console.warn)(parity.portability)
    else:
        console.log(f"parity passed: cosine {parity.cosine:.6f} to the student")
    return parity
