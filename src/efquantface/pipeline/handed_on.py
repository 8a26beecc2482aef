"""What the first process made alone, in all processes of a run: the student that they train.

Pruning to a time, and what is tried and left out where it does not help, depend on the machine: repeated
everywhere they would not give one student. So the first process starts alone and hands on what it has.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from efquantface.distill.ranks import Ranks
from efquantface.graph.checkpoint import checkpoint_bytes
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.pipeline.start import Start
from efquantface.quantize.float_student import trainable
from efquantface.quantize.scheme import Scheme


def shared_start(
    ranks: Ranks, make: Callable[[], Start], *, quantizes: bool, teacher: bool
) -> Start:
    """The start that the first process makes, in all of them.

    Every process, the first one, too, takes the student from the same bytes: gradients meet in the order
    in which a graph's parameters stand.

    Args:
        make: called in the first process only.
        quantizes: the student is quantized; a float one is made trainable anew.
        teacher: all need the float network: weights settle, or layers are distilled.
    """
    if ranks.alone:
        return make()
    made: list[Start] = []

    def student() -> bytes:
        made.append(make())
        return checkpoint_bytes(made[0].student if quantizes else made[0].teacher)

    received = _model(ranks.once(student))
    floating = received
    if teacher and quantizes:
        floating = _model(ranks.once(lambda: checkpoint_bytes(made[0].teacher)))
    if quantizes:
        trained = ranks.once(lambda: json.dumps(trained_in(made[0].student.graph)).encode())
        train_the_same(received.graph, json.loads(trained))
    else:
        received = trainable(received)
    if not made:
        return Start(received, floating, Scheme())
    made[0].student = received
    return made[0]


def trained_in(graph: nn.Module) -> list[str]:
    """Names of the parameters that training changes, which no checkpoint holds."""
    return [name for name, p in graph.named_parameters() if p.requires_grad]


def train_the_same(graph: nn.Module, names: Sequence[str]) -> None:
    """Let training change the named parameters alone."""
    wanted = set(names)
    for name, parameter in graph.named_parameters():
        parameter.requires_grad_(name in wanted)


def _model(data: bytes) -> FaceModel:
    with tempfile.TemporaryDirectory(prefix="efq-") as folder:
        path = Path(folder, "student.safetensors")
        path.write_bytes(data)
        model = load_model(path)
    model.source = None
    return model
