"""Students whose parts do not fit together are refused before anything large is made."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.errors import EfqError, ModelFileError
from efquantface.graph.checkpoint import GRAPH_KEY, save_checkpoint
from efquantface.importers.load import load_model
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def student(tmp_path: Path, network: nn.Module, contract: FaceContract) -> Path:
    made = quantize(load_model(network, contract=contract), Scheme())
    set_ranges(made.graph, [torch.from_numpy(contract.pixels(make_faces(3, 2).images))])
    save_checkpoint(made, tmp_path / "s.safetensors")
    return tmp_path / "s.safetensors"


def changed(path: Path, change: Change) -> None:
    """The file with another graph."""
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    graph = json.loads(metadata[GRAPH_KEY])
    change(graph)
    save_file(load_file(path), path, {**metadata, GRAPH_KEY: json.dumps(graph)})


def first(graph: dict[str, Any], key: str) -> dict[str, Any]:
    return next(n["attrs"] for n in graph["nodes"] if key in n["attrs"])


def setting(key: str, value: Any) -> Change:
    return lambda graph: first(graph, key).update({key: value})


@pytest.mark.parametrize("bits", [2**40, 0, 1, 9, -8, 8.0, "8", None, True, 10**30])
def test_bits_are_two_to_eight(student: Path, bits: Any) -> None:
    changed(student, setting("bits", bits))
    with pytest.raises(ModelFileError, match=r"s\.safetensors: node \d+ .*bits"):
        load_model(student)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (setting("in_channels", 10**6), r"is \(|cannot be built"),
        (setting("out_features", 10**6), r"is \("),
        (setting("in_channels", 2**40), "in_channels is"),
        (setting("kernel_size", [3, 5]), r"is \("),
        (setting("stride", [0, 0]), "does not take"),
        (setting("padding", [10**6, 10**6]), "does not take"),
        (setting("groups", 7), r"cannot be built|is \("),
        (setting("scale", float("inf")), "not a finite number"),
        (setting("kernel_size", {"a": 3}), "not a finite number"),
        (lambda graph: graph["nodes"][3].update(inputs="pixels"), "no list of names"),
        (lambda graph: graph["nodes"][3].update(kind=[]), "another type"),
        (lambda graph: graph["nodes"].append(5), "of the stored graph"),
        (lambda graph: graph.update(nodes={}), "no list of nodes"),
        (lambda graph: graph.update(output=graph["nodes"][4]["name"]), "unexpected"),
        (setting("max_value", 1e300), "not a finite number"),
        (lambda graph: graph.update(node_names=3), "cannot be read"),
        (lambda graph: graph.update(channels={"a": float("inf")}), "cannot be read"),
    ],
)
def test_parts_that_do_not_fit(student: Path, change: Change, match: str) -> None:
    changed(student, change)
    with pytest.raises(ModelFileError, match=rf"s\.safetensors: .*({match})"):
        load_model(student)


def test_weights_of_another_type(student: Path) -> None:
    with safe_open(str(student), framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(student)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name].double()}, student, metadata)
    with pytest.raises(ModelFileError, match="float64"):
        load_model(student)


def test_any_value_of_a_graph_may_be_wrong(student: Path) -> None:
    """One value replaced at a time: a network that runs, or an error that names the file."""
    whole, draw = student.read_bytes(), random.Random(0)
    values = (None, True, -1, 0, 3, 2**31, 2**40, 1e300, "x", [], {}, [0], "pixels")
    for _ in range(40):
        student.write_bytes(whole)

        def change(graph: dict[str, Any]) -> None:
            node = draw.choice(graph["nodes"])
            where = node["attrs"] if node["attrs"] and draw.random() < 0.7 else node
            where[draw.choice(sorted(where))] = draw.choice(values)

        changed(student, change)
        try:
            model = load_model(student)
            model.embed_pixels(torch.zeros(1, 3, model.contract.height, model.contract.width))
        except EfqError as error:
            said = str(error)
        else:
            said = str(model.source)
        assert "s.safetensors" in said
