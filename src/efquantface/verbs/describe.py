"""A loaded network in lines, and the registry of backbones. Needs PyTorch."""

from __future__ import annotations

from collections import Counter

import torch

from efquantface.backbones.registry import BACKBONES
from efquantface.data.faces import FaceSet
from efquantface.errors import ModelFileError
from efquantface.graph.graph import kind_of, module_nodes, outputs_of, shapes
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.pipeline.preflight import AS_FOUND, separations

_FACES = 400  # enough to tell preprocessings apart


def describe_backbones() -> list[str]:
    """The registry, a line each: parameters, multiply-accumulates, input, embedding size."""
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
    """Operators, parameters, multiply-accumulates, contract, and what pruning took."""
    c = model.contract
    kinds = Counter(kind_of(module) for _, module in module_nodes(model.graph))
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    count = macs(model.graph, c.height, c.width)
    return [
        f"{'quantized student' if model.quantized else 'float network'}: "
        f"{model.parameters:,} parameters, {count / 1e6:,.0f} million multiply-accumulates a crop",
        f"operators after folding: {listed}",
        f"contract: {c.describe()}",
        *(f"  {note}" for note in model.notes),
        f"input {c.input_name!r}, output {c.output_name!r}",
        *_channels(model),
    ]


def _channels(model: FaceModel) -> list[str]:
    """Which layers lost how many channels to pruning."""
    lines = []
    for name, before in model.channels.items():
        left = outputs_of(model.graph.get_submodule(name))
        lines.append(f"  pruned: {name} has {left} of {before} channels")
    return lines


def layers(model: FaceModel) -> list[str]:
    """Layers with their shapes and parameters, a line each."""
    found = shapes(model.graph, model.contract.height, model.contract.width)
    lines = []
    for node, module in module_nodes(model.graph):
        values = sum(p.numel() for p in module.parameters())
        size = "x".join(str(v) for v in found[str(node.target)][1:])
        lines.append(f"  {kind_of(module):<14} {size:<14} {values:>10,}  {node.target}")
    return lines


def tried(model: FaceModel, faces: FaceSet) -> list[str]:
    """Same against different pairs under every preprocessing that the field uses.

    Raises:
        ModelFileError: a student, whose contract is its teacher's.
    """
    if model.quantized:
        raise ModelFileError(
            f"{model.name}: a student's contract is its teacher's, not to be tried"
        )
    scores = separations(model, faces, _FACES)
    count, found = min(len(faces), _FACES), model.contract
    lines = [f"tried on {count:,} faces, same against different pairs (AUC, best first):"]
    for name, value in sorted(scores.items(), key=lambda item: -item[1]):
        known = found if name == AS_FOUND else found.with_preprocess(name)
        lines.append(f"  {name:<14} {value:.4f}   {known.color}, {known.normalization}")
    return lines
