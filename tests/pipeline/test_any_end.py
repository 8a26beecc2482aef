"""A network may end in anything: imported as ONNX Runtime computes it, and compressed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import NodeProto

from conftest import make_faces
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ModelFileError
from efquantface.graph import ops
from efquantface.graph.graph import module_of, output_node
from efquantface.importers.load import load_model
from efquantface.pipeline.compress import compress
from efquantface.pipeline.method import CompressResult
from efquantface.verbs.export import export_model
from face_files import MAP, SIZE, WIDE, Arrays, backbone, dense, drawn, node, ran, save

FACES = make_faces(6, 4, SIZE)
Parts = tuple[list[NodeProto], Arrays]


def _behind_dense(*nodes: NodeProto, **weights: np.ndarray) -> Parts:
    """A linear layer, and what reads its result ``e``."""
    layer, own = dense()
    return [*layer, *nodes], {**own, **weights}


def _concat() -> Parts:
    first, a = dense(result="a", name="g")
    second, b = dense(result="b", name="second")
    return [*first, *second, node("Concat", ["a", "b"], "out", axis=1)], {**a, **b}


def _sum() -> Parts:
    nodes, weights = _concat()
    return [*nodes[:-1], node("Add", ["a", "b"], "out")], weights


def _norm_beside() -> Parts:
    return _behind_dense(
        node("ReduceL2", ["e"], "norm", axes=[1], keepdims=1), node("Div", ["e", "norm"], "out")
    )


STATISTICS = {
    "s": np.linspace(0.5, 1.5, WIDE, dtype=np.float32),
    "o": drawn(WIDE, seed=6),
    "m": drawn(WIDE, seed=7),
    "v": np.linspace(0.5, 1.5, WIDE, dtype=np.float32),
}
DEPTHWISE = {"dw": drawn(WIDE, 1, MAP, MAP, seed=5), **STATISTICS}
_POOLED = node("GlobalAveragePool", ["map"], "p")

ENDS: dict[str, Parts] = {
    "linear": _behind_dense(node("Identity", ["e"], "out")),
    "relu": _behind_dense(node("Relu", ["e"], "out")),
    "prelu": _behind_dense(
        node("PRelu", ["e", "slope"], "out"), slope=np.linspace(-0.2, 1.3, WIDE, dtype=np.float32)
    ),
    "leaky": _behind_dense(node("LeakyRelu", ["e"], "out", alpha=0.1)),
    "sigmoid": _behind_dense(node("Sigmoid", ["e"], "out")),
    "layer norm": _behind_dense(
        node("LayerNormalization", ["e", "s", "o"], "out", axis=-1, epsilon=1e-5),
        s=STATISTICS["s"],
        o=STATISTICS["o"],
    ),
    "batch norm behind relu": _behind_dense(
        node("Relu", ["e"], "r"),
        node("BatchNormalization", ["r", *STATISTICS], "out"),
        **STATISTICS,
    ),
    "relu, norm": _behind_dense(
        node("Relu", ["e"], "r"), node("LpNormalization", ["r"], "out", axis=1, p=2)
    ),
    "concat of linears": _concat(),
    "sum of linears": _sum(),
    "global pooling": ([_POOLED, node("Flatten", ["p"], "out")], {}),
    "pooled map as it is": ([node("GlobalAveragePool", ["map"], "out")], {}),
    "pooling, norm": (
        [_POOLED, node("Flatten", ["p"], "f"), node("LpNormalization", ["f"], "out", axis=-1, p=2)],
        {},
    ),
    "norm of a 1x1 map": ([_POOLED, node("LpNormalization", ["p"], "out", axis=1, p=2)], {}),
    "depthwise convolution, batch norm": (
        [
            node("Conv", ["map", "dw"], "d", group=WIDE),
            node("BatchNormalization", ["d", *STATISTICS], "n"),
            node("Flatten", ["n"], "out"),
        ],
        DEPTHWISE,
    ),
    "depthwise convolution, prelu": (
        [
            node("Conv", ["map", "dw"], "d", group=WIDE),
            node("PRelu", ["d", "slope"], "q"),
            node("Flatten", ["q"], "out"),
        ],
        {"dw": DEPTHWISE["dw"], "slope": drawn(WIDE, 1, 1, seed=8)},
    ),
    "depthwise convolution, norm": (
        [
            node("Conv", ["map", "dw"], "d", group=WIDE),
            node("Squeeze", ["d", "hw"], "f"),
            node("LpNormalization", ["f"], "out", axis=1, p=2),
        ],
        {"dw": DEPTHWISE["dw"], "hw": np.array([2, 3])},
    ),
    "(N,1,1,D)": (
        [_POOLED, node("Transpose", ["p"], "out", perm=[0, 2, 3, 1])],
        {},
    ),
    "(N,1,D)": _behind_dense(node("Unsqueeze", ["e", "one"], "out"), one=np.array([1])),
    "(D,) by Squeeze": _behind_dense(node("Squeeze", ["e"], "out")),
    "(D,) by Reshape": _behind_dense(node("Reshape", ["e", "all"], "out"), all=np.array([-1])),
}


def _compressed(path: Path, folder: Path, **options: object) -> CompressResult:
    return compress(
        path,
        FACES,
        folder,
        epochs=0,
        quiet=True,
        anyway=True,
        benchmark=False,
        cache=False,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("end", ENDS)
def test_an_end_is_imported_and_compressed(end: str, tmp_path: Path) -> None:
    nodes, weights = ENDS[end]
    start, own = backbone()
    path = save(tmp_path / "m.onnx", [*start, *nodes], {**own, **weights})
    model = load_model(path)
    wanted = ran(path, model.contract.normalize(FACES.images))
    found = model.embed_pixels(torch.from_numpy(model.contract.pixels(FACES.images))).numpy()
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert model.contract.embedding_size == wanted.shape[1]

    done = _compressed(path, tmp_path / "run")
    assert not done.parity.problems
    assert done.parity.student_cosine > 0.99
    assert all(0.98 < found["ratio"] < 1.02 for found in done.results.lengths.values())


@pytest.mark.parametrize("end", ["layer norm", "prelu", "concat of linears"])
@pytest.mark.parametrize(
    "options", [{"bits": "w4a4"}, {"activations": "symmetric"}, {"prune": 0.3}]
)
def test_an_end_goes_with_other_settings(
    end: str, options: dict[str, object], tmp_path: Path
) -> None:
    nodes, weights = ENDS[end]
    start, own = backbone()
    path = save(tmp_path / "m.onnx", [*start, *nodes], {**own, **weights})
    assert not _compressed(path, tmp_path / "run", **options).parity.problems


@pytest.mark.parametrize("end", ["prelu", "depthwise convolution, prelu", "layer norm"])
def test_an_end_goes_to_other_formats(end: str, tmp_path: Path) -> None:
    """Each is compared with its student before it is delivered."""
    nodes, weights = ENDS[end]
    start, own = backbone()
    path = save(tmp_path / "m.onnx", [*start, *nodes], {**own, **weights})
    run = _compressed(path, tmp_path / "run").run.path
    for target, kind in ((tmp_path / "s.xml", "openvino"), (tmp_path / "s.onnx", "scales")):
        export_model(str(run), target, kind, as_float=False, preprocess=None, force=False)
        assert target.is_file()
    export_model(
        str(path), tmp_path / "f.onnx", "onnx", as_float=True, preprocess=None, force=False
    )
    rows = [Embedder.open(p).embed(FACES.images) for p in (path, tmp_path / "f.onnx")]
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-4, atol=1e-4 * np.abs(rows[0]).max())


def test_layers_in_front_of_an_end_compute_in_integers(tmp_path: Path) -> None:
    nodes, weights = ENDS["relu, norm"]
    start, own = backbone()
    path = save(tmp_path / "m.onnx", [*start, *nodes], {**own, **weights})
    done = _compressed(path, tmp_path / "run")
    executed = done.parity.executed
    assert (executed.integer_convolutions, executed.convolutions) == (1, 1)
    assert (executed.integer_products, executed.products) == (1, 1)
    assert isinstance(
        module_of(done.student.graph, output_node(done.student.graph)), ops.L2Normalize
    )


def test_training_looks_through_a_norm(tmp_path: Path) -> None:
    """Layers in front of it learn from what is told of unit embeddings."""
    nodes, weights = ENDS["relu, norm"]
    start, own = backbone()
    path = save(tmp_path / "m.onnx", [*start, *nodes], {**own, **weights})
    kept = {"bits": "w4a4", "rounding": "nearest"}
    trained = compress(
        path, FACES, tmp_path / "run", quiet=True, cache=False, anyway=True, benchmark=False,
        epochs=4, batch_size=8, lr=1e-3, **kept
    )  # fmt: skip
    untrained = _compressed(path, tmp_path / "other", **kept)
    assert trained.results.history.best_step > 0
    assert trained.parity.student_cosine > untrained.parity.student_cosine
    assert trained.results.lengths


def test_the_embedding_beside_a_norm_is_found(tmp_path: Path) -> None:
    """By what it declares, or by what it gives."""
    nodes, weights = _norm_beside()
    start, own = backbone()
    declared = {"norm": ["n", 1], "out": ["n", WIDE]}
    for outputs in (declared, {"norm": None, "out": None}):
        path = save(
            tmp_path / "m.onnx", [*start, *nodes], {**own, **weights}, outputs=dict(outputs)
        )
        model = load_model(path)
        assert (model.contract.output_name, model.contract.embedding_size) == ("out", WIDE)
    assert not _compressed(path, tmp_path / "run").parity.problems


def test_a_refusal_comes_before_faces_are_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: also a fault of ours is found first, and told as an error."""
    nodes = [
        node("AveragePool", ["in"], "p", kernel_shape=[4, 4], strides=[4, 4]),
        node("Flatten", ["p"], "out"),
    ]
    path = save(tmp_path / "pool.onnx", nodes, {})
    with pytest.raises(ModelFileError, match="no convolution and no linear layer"):
        _compressed(path, tmp_path / "run")

    def broken(*_: object) -> None:
        raise AssertionError("a float tensor")

    start, own = backbone()
    end, weights = ENDS["linear"]
    good = save(tmp_path / "good.onnx", [*start, *end], {**own, **weights})
    monkeypatch.setattr("efquantface.pipeline.compressible.quantize", broken)
    with pytest.raises(ModelFileError, match=r"good\.onnx: has no integer form"):
        _compressed(good, tmp_path / "run")
    assert not (tmp_path / "run").exists()
