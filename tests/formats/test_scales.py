"""The float network and the scales for other converters give the student's own integers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.graph.graph import module_nodes, name_of
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.verbs.export import export_model
from students import student_of


@pytest.mark.parametrize("symmetric", [False, True])
def test_scales_rebuild_the_integers(
    tmp_path: Path, network: nn.Module, contract: FaceContract, symmetric: bool
) -> None:
    """The float network computes the student but for its activations' rounding; scales give codes."""
    _, student = student_of(network, contract, "w4a8", symmetric)
    deliver(student, FORMATS["scales"], tmp_path / "out.onnx")
    found = json.loads((tmp_path / "out.scales.json").read_text())
    faces = make_faces().images
    by_student = student.embed_pixels(torch.from_numpy(contract.pixels(faces))).numpy()
    by_float = Embedder.open(tmp_path / "out.onnx").embed(faces)
    cosine = (by_float * by_student).sum(1) / np.linalg.norm(by_float, axis=1)
    assert (cosine / np.linalg.norm(by_student, axis=1)).mean() > 0.999
    weights = {t.name: t for t in onnx.load(str(tmp_path / "out.onnx")).graph.initializer}
    layers = {entry["layer"]: (name, entry) for name, entry in found["weights"].items()}
    for node, module in module_nodes(student.graph):
        if isinstance(module, QuantConv2d | QuantLinear):
            tensor, entry = layers[name_of(node)]
            weight = numpy_helper.to_array(weights[tensor])
            weight = np.moveaxis(weight, entry["axis"], 0)
            step = np.asarray(entry["scales"]).reshape(-1, *(1,) * (weight.ndim - 1))
            codes, _ = module.weight_codes()
            np.testing.assert_array_equal(np.rint(weight / step), codes.numpy())
    assert all(entry["signed"] is symmetric for entry in found["activations"].values())


@pytest.mark.parametrize("bits", ["w8a8", "w4a4", "w6a6"])
def test_every_key_is_a_tensor_whose_values_are_the_codes(
    tmp_path: Path, network: nn.Module, contract: FaceContract, bits: str
) -> None:
    """Quantizing the float file's tensors as the JSON says gives the student's own values, nearly."""
    _, student = student_of(network, contract, bits)
    deliver(student, FORMATS["scales"], tmp_path / "out.onnx")
    found = json.loads((tmp_path / "out.scales.json").read_text())
    assert found["file"] == "out.onnx"
    proto = onnx.load(str(tmp_path / "out.onnx"))
    names = [*found["activations"], *(n for n in found["requantized"])]
    made = {o for node in proto.graph.node for o in node.output}
    inside = [n for n in dict.fromkeys(names) if n in made]
    assert set(names) - made <= {contract.input_name}
    kept = {o.name for o in proto.graph.output}
    for name in inside:
        if name not in kept:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    x = contract.normalize(make_faces().images[:8])
    session = ort.InferenceSession(proto.SerializeToString())
    values = dict(zip(inside, session.run(inside, {contract.input_name: x}), strict=True))
    values[contract.input_name] = x
    for name in names:
        for entry in (found[kind].get(name) for kind in ("activations", "requantized")):
            if entry is None:
                continue
            codes = np.rint(values[name] / entry["scale"]) + entry["zero_point"]
            low, high = (-128, 127) if entry["signed"] else (0, 2 ** entry["bits"] - 1)
            inside_range = (codes >= low - 1) & (codes <= high + 1)
            assert inside_range.mean() > 0.9, (name, entry)  # ranges leave out a few outliers
            assert len(np.unique(np.clip(codes, low, high))) > 3, (name, entry)


def test_the_json_may_be_named(tmp_path: Path, network: nn.Module, contract: FaceContract) -> None:
    _, student = student_of(network, contract)
    save_checkpoint(student, tmp_path / "student.safetensors")
    for given, files in (
        ("a.json", ["a.json", "a.onnx"]),
        ("b.onnx", ["b.onnx", "b.scales.json"]),
        ("c.scales.json", ["c.onnx", "c.scales.json"]),
    ):
        out = tmp_path / given[0]
        export_model(
            str(tmp_path / "student.safetensors"),
            out / given,
            "scales",
            as_float=False,
            preprocess=None,
            force=False,
        )
        assert sorted(p.name for p in out.iterdir()) == files
        assert (
            json.loads((out / files[0 if given[0] == "a" else 1]).read_text())["file"]
            == files[1 if given[0] == "a" else 0]
        )
