"""What a file does not declare: height and width, the embedding's length, the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import make_faces
from efquantface.contract import parse_size
from efquantface.data.faces import FaceSet
from efquantface.data.images import write_image
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ContractError
from efquantface.evaluation.sets import EvalSet
from efquantface.importers.load import load_model
from efquantface.importers.onnx.facts import read_facts
from efquantface.pipeline.compress import compress
from efquantface.verbs.embed import embed_faces
from efquantface.verbs.evaluate import evaluate
from face_files import SIZE, WIDE, Arrays, backbone, dense, node, ran, save

OPEN = ("n", 3, "h", "w")


def _dense(path: Path, shape: tuple[int | str, ...] = OPEN, **more: object) -> Path:
    """A file with a dense layer behind a map, which takes 16x16 crops only."""
    start, a = backbone()
    layer, b = dense(result="out")
    return save(path, [*start, *layer], {**a, **b}, shape=shape, **more)  # type: ignore[arg-type]


def _pooled(path: Path, shape: tuple[int | str, ...] = OPEN) -> Path:
    """A file that takes crops of any size."""
    start, a = backbone()
    nodes = [*start, node("GlobalAveragePool", ["map"], "p"), node("Flatten", ["p"], "f")]
    end: Arrays = {"gw": np.eye(WIDE, dtype=np.float32), "gb": np.zeros(WIDE, np.float32)}
    return save(path, [*nodes, node("Gemm", ["f", "gw", "gb"], "out")], {**a, **end}, shape=shape)


def _folder(root: Path, faces: FaceSet) -> Path:
    for name, image in zip(faces.names, faces.images, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, image)
    return root


def test_a_dense_layer_settles_height_and_width(tmp_path: Path) -> None:
    path = _dense(tmp_path / "m.onnx")
    model = load_model(path)
    assert (model.contract.height, model.contract.width) == (SIZE, SIZE)
    assert not model.open_size
    assert "16x16, which its dense layer takes" in model.notes[0]
    with pytest.raises(ContractError, match="takes 16x16 crops, not 32x32"):
        load_model(path, size=(32, 32))
    assert read_facts(path).embedding_size == WIDE


def test_a_declared_size_is_not_another(tmp_path: Path) -> None:
    path = _dense(tmp_path / "m.onnx", ("n", 3, SIZE, SIZE))
    assert load_model(path, size=(SIZE, SIZE)).contract.height == SIZE
    with pytest.raises(ContractError, match="takes 16x16 crops, not 16x112"):
        load_model(path, size=(112, 16))


def test_any_size_is_the_crops(tmp_path: Path) -> None:
    """Of faces to compress with, to embed, or to evaluate on; otherwise 112, and that is said."""
    path, faces = _pooled(tmp_path / "m.onnx"), make_faces(6, 4, 24)
    folder = _folder(tmp_path / "faces", faces)
    model = load_model(path)
    assert (model.contract.height, model.open_size) == (112, True)
    assert "takes any: 112x112 until crops or --size say otherwise" in model.notes[0]
    assert load_model(path, size=(24, 20)).contract.width == 20
    for given in (faces, folder):
        done = compress(
            path, given, tmp_path / "run", epochs=0, quiet=True, anyway=True, benchmark=False,
            cache=False, force=True, check_alignment=False,
        )  # fmt: skip
        assert (done.student.contract.height, done.student.contract.width) == (24, 24)
        assert not done.parity.problems
    for item in (EvalSet("mine", faces, None, True), f"folder={folder}"):
        assert evaluate(path, item, quiet=True)[0].counts["images"] == len(faces)
    count, _ = embed_faces(path, folder, tmp_path / "rows.npz", quiet=True)
    assert count == len(faces)


def test_a_told_size_wins_over_the_crops(tmp_path: Path) -> None:
    path, faces = _pooled(tmp_path / "m.onnx"), make_faces(6, 4, 24)
    folder = _folder(tmp_path / "faces", faces)
    done = compress(
        path, folder, tmp_path / "run", epochs=0, quiet=True, anyway=True, benchmark=False,
        cache=False, check_alignment=False, size="32", resize=True,
    )  # fmt: skip
    assert done.student.contract.height == 32


@pytest.mark.parametrize("declared", [None, ["n", "d"], [1, WIDE], ["n", WIDE]])
def test_the_length_of_embeddings_is_measured(
    declared: list[int | str] | None, tmp_path: Path
) -> None:
    path = _dense(tmp_path / "m.onnx", ("n", 3, SIZE, SIZE), outputs={"out": declared})
    model = load_model(path)
    assert read_facts(path).embedding_size == model.contract.embedding_size == WIDE
    # a contract that says the right length is taken
    assert Embedder.open(path, contract=model.contract).contract.embedding_size == WIDE


@pytest.mark.parametrize("target", [[1, -1], [1, WIDE * 16]])
def test_a_batch_that_is_open_outside_and_fixed_inside(target: list[int], tmp_path: Path) -> None:
    start, a = backbone()
    layer, b = dense(result="out")
    reshape = node("Reshape", ["map", "target"], "g_flat")
    weights = {**a, **b, "target": np.array(target)}
    path = save(tmp_path / "m.onnx", [*start, reshape, layer[1]], weights)
    faces = make_faces(2, 3, SIZE).images
    embedder = Embedder.open(path)
    x = embedder.contract.normalize(faces)
    np.testing.assert_allclose(embedder.embed(faces), ran(path, x), rtol=1e-5)
    model = load_model(path)
    own = Embedder.open(model, backend="onnxruntime").embed(faces)
    np.testing.assert_allclose(own, ran(path, x), rtol=1e-4, atol=1e-5)


def test_sizes_are_read() -> None:
    assert parse_size("160") == (160, 160)
    assert parse_size(" 112X96 ") == (112, 96)
    for wrong in ("", "0", "12x", "x12", "1x2x3", "-5", "big"):
        with pytest.raises(ContractError, match="HEIGHTxWIDTH"):
            parse_size(wrong)
