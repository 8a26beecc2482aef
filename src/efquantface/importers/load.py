"""Anything that a user can give as a model (file, name of a default, ``nn.Module``), as a FaceModel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import fx, nn

from efquantface.contract import ASSUMED, FaceContract
from efquantface.errors import ContractError, ModelFileError
from efquantface.graph.checkpoint import is_own_checkpoint, load_checkpoint
from efquantface.graph.model import FaceModel
from efquantface.graph.rewrites import canonicalize, prepend_normalize
from efquantface.importers.contracts import find_contract, resolve, wanted_size
from efquantface.importers.dlib_resnet import load_dlib_resnet
from efquantface.importers.foreign import foreign_format
from efquantface.importers.looks import refuse_detectors
from efquantface.importers.modules import module_graph, unwrapped
from efquantface.importers.onnx.importer import import_proto
from efquantface.importers.onnx.proto import load_proto
from efquantface.importers.packs import is_pack, open_pack
from efquantface.importers.recognize import recognize
from efquantface.importers.state_dicts import SUFFIXES
from efquantface.importers.torch_fx import import_module
from efquantface.quantize.vocabulary import OPERATORS


def load_model(
    model: str | Path | nn.Module | FaceModel,
    *,
    contract: FaceContract | None = None,
    preprocess: str | None = None,
    size: tuple[int, int] | None = None,
) -> FaceModel:
    """Load a network from a file, by the name of a default, or from a module.

    Args:
        model: an ``.onnx`` file, a PyTorch or safetensors checkpoint of a known backbone, an
            efquantface ``.safetensors``, a run's directory, a pack of networks (folder or zip),
            dlib's ``.dat``, the name of a default (see ``efq models list``), or an ``nn.Module``.
        contract: required for an ``nn.Module``; takes precedence over a file's own.
        preprocess: one of ``insightface``, ``adaface``, ``imagenet``, ``raw``, for files that do
            not say how pixels are normalized.
        size: height and width of crops, for ONNX files that leave them open.

    Raises:
        ModelFileError: the file is missing, damaged, of another framework, or no face-recognition
            network.
        NotRecognizingError: the file is a detector, or a pack has no recognizer or several.
        ContractError: an ``nn.Module`` has no contract, or the file takes crops of another size.
        UnsupportedOperatorError: operators have no canonical form.
    """
    if isinstance(model, FaceModel):
        return model
    if isinstance(model, nn.Module):
        if contract is None:
            raise ContractError("an nn.Module needs contract=FaceContract(...)")
        graph, notes = module_graph(model, contract)
        over = _over_pixels(graph, contract)
        return FaceModel(over, contract, notes=notes, label=type(unwrapped(model)).__name__)
    path = resolve(model)
    if path.suffix == ".onnx":
        made = _from_onnx(path, contract, preprocess, size)
        made.notes[:0] = _pack_notes(model)
        return made
    if path.suffix == ".dat":
        graph, found = load_dlib_resnet(path)
        return FaceModel(canonicalize(graph, found.height, found.width), found, path)
    if path.suffix == ".safetensors" and is_own_checkpoint(path):
        return load_checkpoint(path, OPERATORS)
    foreign = foreign_format(path)
    if foreign is not None:
        raise ModelFileError(f"{path}: {foreign}")
    if path.suffix in SUFFIXES:
        return _from_checkpoint(path, contract, preprocess)
    raise ModelFileError(
        f"{path}: not a file that efquantface reads (.onnx, {', '.join(SUFFIXES)}, .dat)"
    )


def _from_onnx(
    path: Path,
    contract: FaceContract | None,
    preprocess: str | None,
    size: tuple[int, int] | None,
) -> FaceModel:
    proto = load_proto(path)
    refuse_detectors(proto, path)
    imported = import_proto(proto, path, wanted_size(contract, size))
    found, notes = find_contract(imported.facts, path, contract, preprocess)
    graph = _over_pixels(imported.graph, found)
    made = FaceModel(graph, found, path, False, imported.facts.node_names, notes)
    made.open_size = imported.facts.open_size
    return made


def _from_checkpoint(
    path: Path, contract: FaceContract | None, preprocess: str | None
) -> FaceModel:
    """A backbone recognized by its tensors' names, with the preprocessing of its dialect."""
    found = recognize(path)
    size = found.dialect.size
    readings = found.dialect.readings(found.prefix)
    family = preprocess or readings[0]
    notes = [f"recognized by its tensors' names: {found.dialect.name}", *found.notes]
    if contract is None:
        with torch.no_grad():
            width = found.module(torch.zeros(1, 3, size, size)).shape[1]
        plain = FaceContract(size, size, width, template=found.dialect.template)
        contract = plain.with_preprocess(family)
        source = (
            f"--preprocess {preprocess}" if preprocess else f"{ASSUMED} by the family, {family}"
        )
        contract = replace(contract, source=source)
    over = _over_pixels(import_module(found.module, contract), contract)
    open_ones = readings if contract.source.startswith(ASSUMED) else ()
    return FaceModel(over, contract, path, notes=notes, readings=open_ones)


def _pack_notes(model: str | Path) -> list[str]:
    """What a pack of networks holds, one line per file; empty for a single file."""
    path = Path(model)
    return (
        [f"in {path.name}: {line}" for line in open_pack(path).described] if is_pack(path) else []
    )


def _over_pixels(graph: fx.GraphModule, contract: FaceContract) -> fx.GraphModule:
    """The graph with its contract's normalization in front, merged with one that is there."""
    graph = prepend_normalize(graph, contract.mean, contract.std)
    return canonicalize(graph, contract.height, contract.width)
