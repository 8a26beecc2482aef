"""A loaded network and the registry of backbones, as lines of text. Needs PyTorch."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch

from efquantface.backbones.registry import BACKBONES
from efquantface.data.faces import FaceSet
from efquantface.errors import ModelFileError
from efquantface.export.onnx_writer import to_onnx
from efquantface.export.portability import PORTABLE, overflowing, wrong_without_vnni
from efquantface.graph.graph import kind_of, module_nodes, outputs_of, shapes
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.pipeline.preflight import AS_FOUND, separations

_FACES = 400  # enough to tell preprocessings apart


def describe_backbones() -> list[str]:
    """One line per backbone: parameters, multiply-accumulates, input, embedding size."""
    lines = []
    for name, entry in BACKBONES.items():
        c = entry.contract
        with torch.device("meta"):  # shapes without memory
            network = entry.build()
            count = macs(network, c.height, c.width)
        values = sum(p.numel() for p in network.parameters())
        lines.append(
            f"{name:<21}{values / 1e6:5.1f} M parameters {count / 1e6:7,.0f} M MACs  "
            f"{c.width}x{c.height} {c.color} -> {c.embedding_size}  {entry.about}"
        )
    return lines


def network(model: FaceModel) -> list[str]:
    """Lines on operators, parameters, multiply-accumulates, contract, and channels pruned."""
    c = model.contract
    kinds = Counter(kind_of(module) for _, module in module_nodes(model.graph))
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    count = macs(model.graph, c.height, c.width)
    return [
        f"{'quantized student' if model.quantized else 'float network'}: "
        f"{model.parameters:,} parameters, {count / 1e6:,.0f} million multiply-accumulates per crop",
        f"operators after folding: {listed}",
        f"contract: {c.describe()}",
        *(f"  {note}" for note in model.notes),
        f"input {c.input_name!r}, output {c.output_name!r}",
        *([f"portable: {_portable(model)}"] if model.quantized else []),
        *_channels(model),
    ]


def _portable(student: FaceModel) -> str:
    """Whether a file of the student is right on every processor, in words."""
    layers = overflowing(to_onnx(student))
    if not layers:
        return f"yes, {PORTABLE}"
    return f"no, {wrong_without_vnni(layers)}; efq export makes it portable"


def _channels(model: FaceModel) -> list[str]:
    """One line per pruned layer: how many of its channels are left."""
    lines = []
    for name, before in model.channels.items():
        left = outputs_of(model.graph.get_submodule(name))
        lines.append(f"  pruned: {name} has {left} of {before} channels")
    return lines


def numbers(model: FaceModel) -> dict[str, Any]:
    """The content of :func:`network`, as plain data."""
    c = model.contract
    return {
        "quantized": model.quantized,
        "parameters": model.parameters,
        "macs": macs(model.graph, c.height, c.width),
        "operators": dict(Counter(kind_of(module) for _, module in module_nodes(model.graph))),
        "contract": asdict(c),
        "notes": list(model.notes),
        "pruned_layers": {
            name: {"channels": outputs_of(model.graph.get_submodule(name)), "of": before}
            for name, before in model.channels.items()
        },
    }


@dataclass(frozen=True)
class Layer:
    """A layer: its kind, the shape of its output, (C,H,W) for maps, and its number of parameters."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int

    def line(self) -> str:
        """One line of text."""
        size = "x".join(str(v) for v in self.shape)
        return f"  {self.kind:<14} {size:<14} {self.parameters:>10,}  {self.name}"


def layers(model: FaceModel) -> list[Layer]:
    """All layers, in the order of execution."""
    found = shapes(model.graph, model.contract.height, model.contract.width)
    return [
        Layer(
            str(node.target),
            kind_of(module),
            tuple(int(v) for v in found[str(node.target)][1:]),
            sum(p.numel() for p in module.parameters()),
        )
        for node, module in module_nodes(model.graph)
    ]


def separation_scores(model: FaceModel, faces: FaceSet) -> dict[str, float]:
    """AUC of genuine against impostor pairs under each known preprocessing, best first.

    Raises:
        ModelFileError: a student, whose contract is its teacher's.
    """
    if model.quantized:
        raise ModelFileError(
            f"{model.name}: a student has its teacher's contract; give the teacher to try others"
        )
    scores = separations(model, faces, _FACES)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def tried(model: FaceModel, scores: dict[str, float], faces: int) -> list[str]:
    """Lines on the ``scores`` that :func:`separation_scores` gave for ``faces`` faces."""
    lines = [
        f"tried on {min(faces, _FACES):,} faces, genuine against impostor pairs (AUC, best first):"
    ]
    for name, value in scores.items():
        known = model.contract if name == AS_FOUND else model.contract.with_preprocess(name)
        lines.append(f"  {name:<14} {value:.4f}   {known.color}, {known.normalization}")
    return lines
