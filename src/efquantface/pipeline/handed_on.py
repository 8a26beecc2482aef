"""Sends the untrained student from the first process of a run to all others.

Pruning to a time depends on the machine, and so do optimizations that are tried. Repeated in every
process, they could give different students. So the first process makes the student alone.
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
    ranks: Ranks, make: Callable[[], Start], *, quantizes: bool, layers: bool
) -> Start:
    """The start that the first process makes, for all processes.

    Every process reads the student from the same bytes, the first one, too. Gradients are averaged in
    the order of a graph's parameters, which must be the same everywhere.

    Args:
        ranks: the processes of the run.
        make: called in the first process only.
        quantizes: the student is quantized. A float student is made trainable in each process.
        layers: layers are distilled, so all processes need the float network.

    Raises:
        RunError: another process has ended.
    """
    if ranks.alone:
        return make()
    made: list[Start] = []

    def student() -> bytes:
        made.append(make())
        return checkpoint_bytes(made[0].student if quantizes else made[0].teacher)

    received = _model(ranks.once(student))
    floating = received
    if quantizes and layers:
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
    """Names of the parameters that training changes. Checkpoints do not store them."""
    return [name for name, p in graph.named_parameters() if p.requires_grad]


def train_the_same(graph: nn.Module, names: Sequence[str]) -> None:
    """Let training change the named parameters only."""
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
