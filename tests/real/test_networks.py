"""Real networks and real faces, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from conftest import SHARED
from efquantface import Embedder, compress
from efquantface.backbones.edgeface import edgeface_from, edgeface_name
from efquantface.contract import FaceContract
from efquantface.data.align import align_folder, check_alignment
from efquantface.data.faces import load_faces
from efquantface.errors import CropError
from efquantface.importers.load import load_model

pytestmark = pytest.mark.real
WEIGHTS, DATA = SHARED / "weights", SHARED / "data"
CONTRACT = FaceContract(112, 112, 128)


def some_faces(folder: str = "faces6k", count: int = 16) -> np.ndarray:
    return load_faces(DATA / folder, CONTRACT, limit=count).images


@pytest.mark.parametrize("name", ["y1", "mobileface2", "foamliu_mobilefacenet", "edgeface_xs"])
def test_imported_network_equals_its_file(name: str) -> None:
    path = WEIGHTS / f"{name}.onnx"
    preprocess = "imagenet" if name.startswith("foamliu") else None
    faces = some_faces()
    own = Embedder.open(path, backend="torch", preprocess=preprocess).embed(faces)
    theirs = Embedder.open(path, preprocess=preprocess).embed(faces)  # a batch fixed at 1 included
    assert np.abs(own - theirs).max() < 1e-4
    assert load_model(path).contract.is_raw_pixels == (not name.startswith("foamliu"))


def test_checkpoint_equals_the_onnx_of_the_same_network() -> None:
    faces = some_faces()
    checkpoint = load_model(WEIGHTS / "foamliu_mobilefacenet.pt")
    assert "foamliu MobileFaceNet" in checkpoint.notes[0]
    assert checkpoint.contract.mean == (123.675, 116.28, 103.53)
    file = Embedder.open(WEIGHTS / "foamliu_mobilefacenet.onnx", preprocess="imagenet")
    own = Embedder.open(checkpoint).embed(faces)
    np.testing.assert_allclose(own, file.embed(faces), atol=1e-4)


def test_edgeface_written_from_the_paper_equals_its_file() -> None:
    """The backbone of the registry, filled with the file's weights by their names."""
    proto = onnx.load(WEIGHTS / "edgeface_xs.onnx").graph
    weights = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in proto.initializer}
    tensors = {k.removeprefix("net."): v for k, v in weights.items() if k.startswith("net.")}
    for node in proto.node:  # linear layers lost their names in the export; their nodes have them
        if node.op_type == "MatMul" and node.input[1] in weights:
            parts: list[str] = []
            for part in node.name.split("/")[2:-1]:
                parts = [*parts[:-1], part] if "." in part else [*parts, part]
            tensors[".".join(parts) + ".weight"] = weights[node.input[1]].T
    renamed = {edgeface_name(name): value for name, value in tensors.items()}
    network = edgeface_from(renamed)
    network.load_state_dict(renamed)
    faces = some_faces()
    contract = FaceContract(112, 112, 512)
    own = Embedder.open(network.eval(), contract=contract).embed(faces)
    np.testing.assert_allclose(
        own, Embedder.open(WEIGHTS / "edgeface_xs.onnx").embed(faces), atol=1e-4
    )


def test_photos_become_aligned_crops(tmp_path: Path) -> None:
    with pytest.raises(CropError, match="efq align"):
        load_faces(DATA / "raw", CONTRACT)
    report = align_folder(DATA / "raw", tmp_path / "crops", "arcface112")
    assert report.written >= 75
    again = align_folder(DATA / "raw", tmp_path / "crops", "arcface112")
    assert (again.written, again.existing) == (0, report.written)
    crops = load_faces(tmp_path / "crops", CONTRACT)
    assert "alignment checked" in check_alignment(crops, CONTRACT)
    squeezed = load_faces(DATA / "raw", CONTRACT, resize=True)
    with pytest.raises(CropError, match="not aligned"):
        check_alignment(squeezed, CONTRACT)


def test_y1_untrained(tmp_path: Path) -> None:
    source = tmp_path / "faces"
    source.mkdir()
    people = sorted((DATA / "faces6k").iterdir())[:16]
    for person in people:
        (source / person.name).symlink_to(person, target_is_directory=True)
    done = compress(
        str(WEIGHTS / "y1.onnx"), source, tmp_path / "run",
        epochs=0, cache=False, benchmark=False, quiet=True,
    )  # fmt: skip
    assert done.parity.executed.integer_convolutions == done.parity.executed.convolutions == 82
    assert done.results.sizes.ratio <= 0.30
    assert done.results.protocols[0].metric("cosine to teacher").student > 0.993
    names = [o.name for o in ort.InferenceSession(str(done.run.onnx)).get_outputs()]
    assert names == ["embedding"]
