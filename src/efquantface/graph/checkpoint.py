"""Our own checkpoint: safetensors with the graph as JSON in its metadata. No code, no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from efquantface.contract import METADATA_KEY, FaceContract
from efquantface.errors import ModelFileError
from efquantface.files import write_bytes
from efquantface.graph.checking import check_runs, check_weights, specs_from
from efquantface.graph.format_one import translated_nodes, translated_tensors
from efquantface.graph.graph import build, output_name, specs_of
from efquantface.graph.model import FaceModel
from efquantface.graph.ops import Vocabulary
from efquantface.reading import parse_json
from efquantface.text import utf8_name

GRAPH_KEY = "efquantface.graph"
FORMAT_KEY = "efquantface.format"
FORMAT = "2"
_OLD_FORMAT = "1"


def save_checkpoint(model: FaceModel, path: Path) -> None:
    """Write graph, contract and weights. The file appears whole or not at all."""
    write_bytes(path, checkpoint_bytes(model))


def checkpoint_bytes(model: FaceModel) -> bytes:
    """The bytes of a checkpoint: graph, contract and weights."""
    graph = {
        "nodes": [asdict(spec) for spec in specs_of(model.graph)],
        "output": output_name(model.graph),
        "quantized": model.quantized,
        "node_names": list(model.node_names[:8]),
        "channels": model.channels,
    }
    metadata = {
        FORMAT_KEY: FORMAT,
        GRAPH_KEY: json.dumps(graph),
        METADATA_KEY: model.contract.to_json(),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.graph.state_dict().items()}
    return save(tensors, metadata)


def is_own_checkpoint(path: Path) -> bool:
    """Whether a safetensors file holds one of our graphs. Other files hold weights only.

    Raises:
        ModelFileError: the file is damaged.
    """
    try:
        with safe_open(utf8_name(path), framework="pt") as file:
            return FORMAT_KEY in (file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: not a readable safetensors file ({error})") from None


def load_checkpoint(path: Path, vocabulary: Vocabulary) -> FaceModel:
    """Read what :func:`save_checkpoint` wrote.

    Args:
        path: the file.
        vocabulary: the operators that it may hold. Students need those of :mod:`efquantface.quantize`.

    Raises:
        ModelFileError: the file is damaged, of another format, or its weights do not fit its graph.
    """
    try:
        with safe_open(utf8_name(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: not a readable safetensors file ({error})") from None
    written = metadata.get(FORMAT_KEY)
    if written not in (FORMAT, _OLD_FORMAT):
        raise ModelFileError(
            f"{path}: a graph of format {written}, this version reads {_OLD_FORMAT} and {FORMAT}; "
            "export it with the version that wrote it"
        )
    where = str(path)
    try:
        raw = parse_json(metadata[GRAPH_KEY])
        nodes = raw["nodes"]
        if written == _OLD_FORMAT:
            nodes, tensors = translated_nodes(nodes), translated_tensors(tensors)
        output, quantized, names = str(raw["output"]), bool(raw["quantized"]), raw["node_names"]
        names = tuple(str(name) for name in names)
        channels = {str(k): int(v) for k, v in raw.get("channels", {}).items()}
        contract = FaceContract.from_json(metadata[METADATA_KEY], where)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ModelFileError(f"{path}: the stored graph cannot be read ({error})") from None
    specs = specs_from(nodes, where)
    check_weights(specs, output, tensors, vocabulary, where)
    graph = build(specs, output, where, vocabulary)
    graph.load_state_dict(tensors)
    check_runs(graph, contract, where)
    return FaceModel(graph, contract, path, quantized, names, channels=channels)
