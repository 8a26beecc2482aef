"""OpenVINO computes the student: from the ONNX file, and in a placement of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ParityError
from efquantface.export.onnx_writer import write_onnx
from efquantface.formats import openvino
from efquantface.formats.delivery import deliver
from efquantface.formats.openvino import for_openvino
from efquantface.formats.table import FORMATS
from efquantface.graph import ops
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.graph.graph import module_nodes, module_of
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d
from efquantface.runtime.processor import lacks_vnni
from students import student_of


@pytest.mark.parametrize("bits", ["w7a8", "w8a8"])
def test_openvino_gives_the_same_embeddings(
    tmp_path: Path, network: nn.Module, contract: FaceContract, bits: str
) -> None:
    _, student = student_of(network, contract, bits)
    path = tmp_path / "student.onnx"
    write_onnx(student, path)
    faces = make_faces().images
    by_ort = Embedder.open(path).embed(faces)
    by_openvino = Embedder.open(path, backend="openvino").embed(faces)
    cosine = (by_ort * by_openvino).sum(1) / np.linalg.norm(by_ort, axis=1)
    assert (cosine / np.linalg.norm(by_openvino, axis=1)).mean() > 0.999


@pytest.mark.parametrize("steep", [True, False])
@pytest.mark.parametrize("bits", ["w7a8", "w8a8", "w6a8", "w4a4"])
def test_openvino_gets_its_own_placement(
    tmp_path: Path, network: nn.Module, contract: FaceContract, bits: str, steep: bool
) -> None:
    for child in network.modules():
        if isinstance(child, nn.PReLU) and not steep:
            child.weight.data.clamp_(max=1)
    _, student = student_of(network, contract, bits)
    form, count = for_openvino(student)
    assert count == 3
    before, after = (_quantized_before_sums(made) for made in (student, form))
    assert before > after == 0
    lines = deliver(student, FORMATS["openvino"], tmp_path / "student.xml")
    assert "3 PReLUs" in lines[1]
    assert not (tmp_path / "student.export.onnx").exists()
    faces = make_faces().images
    found = Embedder.open(tmp_path / "student.xml").embed(faces)
    expected = form.embed_pixels(torch.from_numpy(contract.pixels(faces))).numpy()
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1)
    assert (cosine / np.linalg.norm(expected, axis=1)).mean() > (0.99 if bits == "w4a4" else 0.9995)
    assert "_prelu" not in "".join(
        n for n, _ in student.graph.named_modules()
    )  # a copy was changed


def test_openvino_after_training_tried_a_slope_above_one(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    """``x + max(w x, 0)`` is no PReLU with ``w > 0``, so training stops at ``w = 0``."""
    for child in network.modules():
        if isinstance(child, nn.PReLU):
            child.weight.data.clamp_(max=1)
    _, student = student_of(network, contract, "w7a8")
    product = next(m for _, m in module_nodes(student.graph) if isinstance(m, QuantAffine))
    with torch.no_grad():
        product.latent += product.latent.abs() / 2 + 0.1
    assert (product.latent > 0).any()
    product.weight.sum().backward()
    assert product.latent.grad is not None
    assert (product.latent.grad > 0).all()  # those at the limit can come back
    assert (product.weight <= 0).all()
    assert (product.weight == 0).any()
    save_checkpoint(student, tmp_path / "student.safetensors")
    lines = deliver(
        load_model(tmp_path / "student.safetensors"), FORMATS["openvino"], tmp_path / "student.xml"
    )
    assert "3 PReLUs" in lines[1]


def _quantized_before_sums(model: FaceModel) -> int:
    """Convolutions whose own quantizer stands between them and a sum that alone reads it."""
    graph, found = model.graph, 0
    for node, module in module_nodes(graph):
        for x in node.args if isinstance(module, ops.Add) else ():
            quantized = isinstance(module_of(graph, x), ActivationQuantizer)
            source = module_of(graph, x.args[0]) if quantized else None
            found += isinstance(source, QuantConv2d) and len(x.users) == 1
    return found


@pytest.mark.parametrize(("full_range", "why"), [(True, "--full-range"), (False, "report")])
@pytest.mark.parametrize("lacking", [True, False])
def test_a_file_that_fails_is_removed(
    tmp_path: Path,
    network: nn.Module,
    contract: FaceContract,
    monkeypatch: pytest.MonkeyPatch,
    full_range: bool,
    why: str,
    lacking: bool,
) -> None:
    """The error says the way out where 16-bit sums are the reason, and asks for a report elsewhere."""
    right = openvino.run_openvino

    def wrong(path: Path) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: right(path)(x)[:, ::-1]

    monkeypatch.setattr(openvino, "lacks_vnni", lambda: lacking)
    monkeypatch.setattr(openvino, "run_openvino", wrong)
    _, student = student_of(network, contract, full_range=full_range)
    with pytest.raises(ParityError, match=why if lacking else "report"):
        deliver(student, FORMATS["openvino"], tmp_path / "student.xml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("bits", "moved", "kept"), [
    ("w4a4", 1, True), ("w4a4", 16, False), ("w8a8", 1, False)
])  # fmt: skip
def test_few_crops_may_move_where_codes_are_wide(
    tmp_path: Path,
    network: nn.Module,
    contract: FaceContract,
    monkeypatch: pytest.MonkeyPatch,
    bits: str,
    moved: int,
    kept: bool,
) -> None:
    """A mean 1 - cosine of 2e-3, in one crop or in all."""
    _, student = student_of(network, contract, bits)
    right, crops = openvino.run_openvino, 16
    away = np.sqrt(2 * 2e-3 * crops / moved)

    def run(path: Path) -> Callable[[np.ndarray], np.ndarray]:
        def embed(x: np.ndarray) -> np.ndarray:
            rows = right(path)(x)
            there = np.arange(len(x)) % crops < moved  # the same crops in every batch
            rows[there, 0] += away * np.linalg.norm(rows[there], axis=1)
            return rows

        return embed

    monkeypatch.setattr(openvino, "run_openvino", run)
    if kept:
        deliver(student, FORMATS["openvino"], tmp_path / "student.xml")
        return
    with pytest.raises(ParityError, match="mean cosine"):
        deliver(student, FORMATS["openvino"], tmp_path / "student.xml")


def test_a_full_range_student_says_where_it_is_wrong(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    if lacks_vnni():
        pytest.skip("its sums overflow here")
    _, student = student_of(network, contract, full_range=True)
    assert (
        "wrong on x86 processors without VNNI"
        in deliver(student, FORMATS["openvino"], tmp_path / "a.xml")[-1]
    )
    _, student = student_of(network, contract)
    assert "same integers" in deliver(student, FORMATS["openvino"], tmp_path / "b.xml")[-1]
