"""Students of full range made portable: only what could overflow is rounded again."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.errors import ExportError
from efquantface.export.onnx_writer import to_onnx, write_onnx
from efquantface.export.portability import PORTABLE_KEY, overflowing
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.graph.graph import module_nodes, name_of
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.placement import quantize
from efquantface.quantize.portable import made_portable
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from efquantface.rows import mean_cosine
from efquantface.verbs import export
from efquantface.verbs.export import export_model


@pytest.fixture
def full(network: nn.Module, contract: FaceContract) -> FaceModel:
    student = quantize(load_model(network, contract=contract), Scheme(full_range=True))
    pixels = torch.from_numpy(contract.pixels(make_faces().images))
    set_ranges(student.graph, [pixels])
    return student


def test_only_layers_that_can_overflow_are_rounded_again(
    full: FaceModel, contract: FaceContract
) -> None:
    named = {name.partition("/")[2] for name in overflowing(to_onnx(full))}
    made, changed = made_portable(full)
    assert set(changed) == named != set()
    assert overflowing(to_onnx(made)) == []
    layers = dict(module_nodes(full.graph))
    for node, module in module_nodes(made.graph):
        if isinstance(module, QuantConv2d | QuantLinear) and name_of(node) not in named:
            before = next(m for n, m in layers.items() if name_of(n) == name_of(node))
            assert torch.equal(module.weight_codes()[0], before.weight_codes()[0])
    pixels = torch.from_numpy(contract.pixels(make_faces().images))
    a, b = (m.embed_pixels(pixels).numpy() for m in (full, made))
    assert 0.99 < mean_cosine(a, b) < 1
    assert made_portable(made)[1] == []


def test_the_file_says_whether_it_is_portable(full: FaceModel, tmp_path: Path) -> None:
    for model, word in ((full, "no"), (made_portable(full)[0], "yes")):
        write_onnx(model, tmp_path / "m.onnx")
        stored = {p.key: p.value for p in onnx.load(str(tmp_path / "m.onnx")).metadata_props}
        assert stored[PORTABLE_KEY] == word


def test_export_makes_portable_or_says_that_it_cannot(
    full: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "student.safetensors"
    save_checkpoint(full, run)
    target = tmp_path / "out.onnx"

    def exported(**options: bool) -> str:
        lines = export_model(
            str(run), target, "onnx", as_float=False, preprocess=None, force=True, **options
        )
        return "\n".join(lines)

    assert "made portable" in exported()
    assert overflowing(onnx.load(str(target))) == []
    assert "wrong on x86 processors without VNNI" in exported(full_range=True)
    assert overflowing(onnx.load(str(target)))
    monkeypatch.setattr(export, "mean_cosine", lambda *_: 0.5)
    with pytest.raises(ExportError, match=r"cannot be made portable.*--full-range"):
        exported()
