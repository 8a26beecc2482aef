"""Galleries on Ray: the same outputs as without it, also where an actor dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from torch import nn

from efquantface.codes import decode
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.embedding.embedder import Embedder
from efquantface.embedding.parts import Way
from efquantface.errors import CropError, DataError, ModelFileError
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from efquantface.ray import FaceEmbedder, embed_dataset, workers
from efquantface.verbs.gallery import embed_gallery
from efquantface.verbs.worker import Done, Worker
from formats import png, write_tar

ray = pytest.importorskip("ray", reason="ray is not installed")
pytest.importorskip("ray.data", reason="ray[data] is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=80_000_000,
    )
    yield
    ray.shutdown()


@pytest.fixture
def model(tmp_path: Path, network: nn.Module, contract: FaceContract) -> Path:
    write_onnx(load_model(network, contract=contract), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def shards(tmp_path: Path, faces: FaceSet) -> list[Path]:
    made = []
    for start in range(0, 48, 16):
        path = tmp_path / f"{start}.tar"
        members = [(f"{i}.png", png(faces.images[i])) for i in range(start, start + 16)]
        made.append(write_tar(path, members))
    return made


class DiesOnce(Worker):
    """Ends its process the first time that it meets a shard."""

    def embed(self, shard: object, progress: object = None) -> Done:
        flag = Path(self.job.output) / "died"
        done = super().embed(shard)  # type: ignore[arg-type]
        if shard.name.startswith("16") and not flag.exists():  # type: ignore[attr-defined]
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        import sys

        notes = [*done.notes, f"torch: {'torch' in sys.modules}"]
        return Done(done.source, done.faces, done.skipped, done.before, notes, done.error)


def test_a_gallery_where_an_actor_dies(
    cluster: None,
    model: Path,
    shards: list[Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from ray import cloudpickle

    here = tmp_path / "here"
    embed_gallery(model, list(shards), here, quiet=True)
    out = tmp_path / "out"
    out.mkdir()
    broken = write_tar(tmp_path / "bad.tar", [("1.png", b"x")])
    broken.write_bytes(broken.read_bytes()[:700])
    # actors get the class by value, as they cannot import this file
    cloudpickle.register_pickle_by_value(__import__(DiesOnce.__module__))
    with pytest.raises(DataError, match=r"1 of 4 shards are not done.*bad\.tar"):
        embed_gallery(model, [*shards, broken], out, each=workers(2, worker=DiesOnce), quiet=True)
    assert (out / "died").exists()
    (out / "died").unlink()
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in here.iterdir())
    for path in here.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert "torch: False" in caplog.text
    assert "torch: True" not in caplog.text


def test_a_model_that_is_none(cluster: None, shards: list[Path], tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=r"no\.onnx"):
        embed_gallery(
            tmp_path / "no.onnx", list(shards), tmp_path / "out", each=workers(1), quiet=True
        )


def test_datasets(cluster: None, model: Path, faces: FaceSet) -> None:
    images = [{"bytes": png(i), "path": None} for i in faces.images]
    table = pyarrow.table({"id": range(48), "image": images})
    dataset = ray.data.from_arrow(table).repartition(4)
    out = embed_dataset(dataset, model, workers=2, batch_size=8, embedding="int8")
    found = pyarrow.concat_tables(ray.get(out.to_arrow_refs())).sort_by("id")
    assert found.column_names == ["id", "embedding", "scale", "unreadable"]
    assert found["id"].to_pylist() == list(range(48))
    rows = decode(np.array(found["embedding"].to_pylist(), np.int8), np.array(found["scale"]))
    wanted = Embedder.open(model).embed(faces.images)
    np.testing.assert_allclose(rows, wanted, atol=float(np.abs(wanted).max()) / 127)


def test_tables(model: Path, faces: FaceSet) -> None:
    embed = FaceEmbedder(str(model), Way(normalize=True))
    cells = [png(faces.images[0]), b"no image", None, png(faces.images[1])]
    found = embed(pyarrow.table({"img": cells, "who": ["a", "b", "c", "d"]}))
    assert found.column_names == ["who", "embedding", "unreadable"]
    assert found["unreadable"].to_pylist()[::3] == [None, None]
    assert all(found["unreadable"].to_pylist()[1:3])
    rows = found["embedding"].to_pylist()
    assert rows[1:3] == [None, None]
    wanted = Embedder.open(model).embed(faces.images[:2])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(rows[::3], wanted, atol=1e-6)
    assert embed(pyarrow.table({"img": [b"x"]}))["embedding"].to_pylist() == [None]
    with pytest.raises(DataError, match="no column of images; there are who"):
        embed(pyarrow.table({"who": ["a"]}))
    large = png(np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(CropError, match="50x50"):
        embed(pyarrow.table({"img": [large, large]}))
