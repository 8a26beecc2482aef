"""Every registered backbone goes the whole way: forward, quantize, a training step, export, parity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import randomize
from efquantface.backbones.registry import BACKBONES
from efquantface.distill.losses import cosine_loss
from efquantface.embedding.embedder import Embedder
from efquantface.export import alone
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.parity import check_parity
from efquantface.graph.macs import macs
from efquantface.importers.load import load_model
from efquantface.quantize.placement import quantize, refresh_biases
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large backbones are embedded crop by crop; tests/export has the batches above 64."""
    monkeypatch.setattr(alone, "BATCHES", (1, 3))


@pytest.mark.parametrize("name", list(BACKBONES))
def test_the_whole_way(name: str, tmp_path: Path) -> None:
    entry = BACKBONES[name]
    torch.manual_seed(0)
    module = randomize(entry.build())
    model = load_model(module, contract=entry.contract)
    c = entry.contract
    faces = np.random.default_rng(0).integers(0, 256, (2, c.height, c.width, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = module(torch.from_numpy(c.normalize(faces))).numpy()
    pixels = torch.from_numpy(c.pixels(faces))
    found = model.embed_pixels(pixels).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())

    write_onnx(model, tmp_path / "float.onnx")
    exported = Embedder.open(tmp_path / "float.onnx").embed(faces)
    np.testing.assert_allclose(exported, expected, atol=1e-4 * np.abs(expected).max())

    student = quantize(model, Scheme())
    set_ranges(student.graph, [pixels])
    before = {k: v.clone() for k, v in student.graph.named_parameters() if v.requires_grad}
    loss = cosine_loss(student.graph(pixels.float()), torch.from_numpy(expected))
    loss.backward()
    assert all(p.grad is not None for p in student.graph.parameters() if p.requires_grad)
    torch.optim.Adam([p for p in student.graph.parameters() if p.requires_grad], lr=1e-5).step()
    changed = [
        k for k, v in student.graph.named_parameters() if k in before and (v != before[k]).any()
    ]
    assert len(changed) > len(before) / 2
    refresh_biases(student.graph)
    write_onnx(student, tmp_path / "student.onnx")
    parity = check_parity(student, tmp_path / "student.onnx", faces, expected)
    assert not [p for p in parity.problems if not p.startswith("end to end")]
    assert parity.executed.integer_convolutions == parity.executed.convolutions
    assert parity.executed.integer_products == parity.executed.products
    # between islands of float, values on the edge of a code may fall to either side, and the
    # sigmoids of squeeze and excitation differ from processor to processor
    assert parity.cosine > (0.99 if "edgeface" in name else 0.9995 if "-se" in name else 0.9999)


def test_macs_are_the_published_ones() -> None:
    """MobileFaceNet 221 M (Chen et al. 2018, table 2 without the 112x96 crop), EdgeFace 77 M."""
    counted = {}
    for name in ("mobilefacenet", "edgeface-xs-gamma-06", "dlib-resnet"):
        entry = BACKBONES[name]
        model = load_model(entry.build().eval(), contract=entry.contract)
        counted[name] = macs(model.graph, entry.contract.height, entry.contract.width) / 1e6
    assert counted["mobilefacenet"] == pytest.approx(221, rel=0.01)
    assert counted["edgeface-xs-gamma-06"] == pytest.approx(154 / 2, rel=0.02)
    with pytest.raises(KeyError):
        BACKBONES["iresnet19"]
