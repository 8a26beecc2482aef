"""``efq inspect``: what a model file holds, what it expects of a crop, and how that was found out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from efquantface.backbones.registry import BACKBONES
from efquantface.data.faces import FaceSet, load_faces
from efquantface.errors import ModelFileError, UnsupportedOperatorError
from efquantface.export.operators import executed
from efquantface.graph.graph import kind_of, module_nodes, outputs_of, shapes
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model, onnx_contract, resolve
from efquantface.importers.onnx.graph import load_proto, quantized_operators
from efquantface.pipeline.preflight import AS_FOUND, separations
from efquantface.pipeline.teacher_check import compared

_FACES = 400  # enough to tell preprocessings apart


def describe_model(
    model: str | Path,
    *,
    faces: str | Path | None = None,
    preprocess: str | None = None,
    layers: bool = False,
    resize: bool = False,
) -> list[str]:
    """Lines about a model: operators, parameters, MACs, contract; with faces, what fits them.

    Args:
        model: anything that :func:`load_model` loads, or a quantized ONNX file.
        faces: a source of faces; colour orders and normalizations are tried on it.
        preprocess: for files that do not say how pixels are normalized.
        layers: also list the layers with their shapes.
        resize: scale crops of another size.

    Raises:
        EfqError: a kind of it, saying what was wrong.
    """
    path = resolve(model)
    lines = [f"{path} ({path.stat().st_size / 1e6:.2f} MB)"]
    if path.suffix == ".onnx":
        quantized = quantized_operators(load_proto(path))
        if quantized:
            return [*lines, *_quantized(path, quantized)]
    try:
        loaded = load_model(model, preprocess=preprocess)
    except UnsupportedOperatorError as error:
        contract = onnx_contract(path, preprocess=preprocess)
        return [
            *lines,
            f"contract: {contract.describe()}",
            f"cannot be compressed: {error}",
            "it can be evaluated and benchmarked as it is",
        ]
    lines += _network(loaded)
    if layers:
        lines += _layers(loaded)
    if faces is not None:
        face_set = load_faces(Path(faces), loaded.contract, resize=resize)
        lines += compared(model, loaded, face_set.images)
        lines += _tried(loaded, face_set)
    return lines


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


def _quantized(path: Path, operators: list[str]) -> list[str]:
    return [
        f"quantized already ({', '.join(operators)}): to be evaluated, benchmarked and deployed, not "
        "compressed again",
        f"contract: {onnx_contract(path).describe()}",
        f"in ONNX Runtime {executed(path).describe()}",
    ]


def _network(model: FaceModel) -> list[str]:
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


def _layers(model: FaceModel) -> list[str]:
    found = shapes(model.graph, model.contract.height, model.contract.width)
    lines = []
    for node, module in module_nodes(model.graph):
        values = sum(p.numel() for p in module.parameters())
        size = "x".join(str(v) for v in found[str(node.target)][1:])
        lines.append(f"  {kind_of(module):<14} {size:<14} {values:>10,}  {node.target}")
    return lines


def _tried(model: FaceModel, faces: FaceSet) -> list[str]:
    """Same against different pairs under every preprocessing that the field uses."""
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
