"""Galleries: every face once, whatever stops, fails, changes or is done by several."""

from __future__ import annotations

import doctest
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from torch import nn

import efquantface
from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.embedding import stored
from efquantface.embedding.embedder import Embedder
from efquantface.errors import DataError, ModelFileError, RecipeError, WriteError
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from efquantface.verbs import gallery as module
from efquantface.verbs import worker
from efquantface.verbs.gallery import Gallery, embed_gallery
from formats import png, write_rec, write_tar


@pytest.fixture
def model(tmp_path: Path, network: nn.Module, contract: FaceContract) -> Path:
    write_onnx(load_model(network, contract=contract), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def shards(tmp_path: Path, faces: FaceSet) -> list[Path]:
    """Sixteen faces in a record, in a tar and in a parquet file."""
    images = [png(image) for image in faces.images]
    labels = [int(i) for i in faces.identities]
    write_rec(tmp_path / "a.rec", images[:16], labels[:16])
    members = []
    for i in range(16, 32):
        members += [(f"{i}.png", images[i]), (f"{i}.cls", str(labels[i]).encode())]
    write_tar(tmp_path / "b.tar", members)
    table = pyarrow.table({"image": images[32:], "label": labels[32:]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet", row_group_size=5)
    return [tmp_path / name for name in ("a.rec", "b.tar", "c.parquet")]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SIZE", 5)


def embedded(model: Path, shards: list[Path], out: Path | str, **options: object) -> Gallery:
    return embed_gallery(model, shards, out, quiet=True, **options)  # type: ignore[arg-type]


def rows_of(out: Path) -> np.ndarray:
    return np.concatenate([stored.read(path).rows for path in sorted(out.iterdir())])


def arrays_of(found: stored.Stored) -> stored.Arrays:
    return {
        "embeddings": found.embeddings,
        "names": np.array(found.names),
        "identities": np.array(found.identities),
    }


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_every_face_once(
    model: Path, shards: list[Path], faces: FaceSet, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    found = embedded(model, shards, out, embedding=kind, flip=True)
    assert found == Gallery(str(out), 3, 0, 48, 0)
    assert [p.name for p in sorted(out.iterdir())] == ["a.rec.npz", "b.tar.npz", "c.parquet"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in out.iterdir()} == {0o600}
    wanted = Embedder.open(model).embed(faces.images, flip=True)
    room = 1e-5 if kind == "float32" else np.abs(wanted).max() / 127
    np.testing.assert_allclose(rows_of(out), wanted, atol=room)
    tar = stored.read(out / "b.tar.npz")
    assert tar.embeddings.dtype == kind
    assert tar.names == [f"b.tar#{i}" for i in range(16, 32)]
    assert tar.identities == [str(i) for i in faces.identities[16:32]]
    assert tar.facts["model_sha256"] == stored.read(out / "c.parquet").facts["model_sha256"]


def test_what_is_done_is_left_alone(model: Path, shards: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    embedded(model, shards[:2], out)
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    assert embedded(model, shards, out) == Gallery(str(out), 3, 2, 48, 0)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    # moved and copied shards are the same
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in (*shards, shards[0].with_suffix(".idx")):
        path.rename(moved / path.name)
    assert embedded(model, [moved / p.name for p in shards], out).before == 3


def test_damaged_outputs_are_made_anew(model: Path, shards: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    embedded(model, shards, out)
    wanted = rows_of(out)
    (out / "a.rec.npz").write_bytes((out / "a.rec.npz").read_bytes()[:300])
    found = stored.read(out / "b.tar.npz")
    changed = arrays_of(found) | {"embeddings": found.embeddings + 1}
    short = {name: values[:9] for name, values in changed.items()}
    for path, arrays, count in ((out / "b.tar.npz", changed, 16), (out / "c.parquet", short, 9)):
        facts = stored.read(path).facts
        with path.open("wb") as stream:
            stored.write(path.suffix, stream, [arrays], count, facts)
    assert embedded(model, shards, out).before == 0
    np.testing.assert_array_equal(rows_of(out), wanted)


def test_two_kinds_of_embeddings_are_never_mixed(
    model: Path, shards: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    embedded(model, shards[:1], out)
    before = (out / "a.rec.npz").read_bytes()
    other = tmp_path / "other.onnx"
    other.write_bytes(model.read_bytes())
    assert embedded(other, shards[:1], out).before == 1  # the same file by another name
    import onnx

    proto = onnx.load(str(model))
    proto.doc_string = "another"
    onnx.save(proto, str(other))
    for options, why in (
        ({"embedding": "int8"}, "embedding float32 instead of int8"),
        ({"flip": True}, "flip False instead of True"),
        ({"model": other}, "model_sha256"),
    ):
        words = {"model": model, **options}
        with pytest.raises(DataError, match=why):
            embedded(words.pop("model"), shards[:1], out, **words)  # type: ignore[arg-type]
        assert (out / "a.rec.npz").read_bytes() == before
    assert embedded(model, shards[:1], out, flip=True, force=True).before == 0
    assert embedded(model, shards[:1], out, flip=True, force=True).before == 1
    np.savez(out / "b.tar.npz", mine=np.ones(3))
    arrays = arrays_of(stored.read(out / "a.rec.npz"))
    with (out / "c.parquet").open("wb") as stream:
        stored.write(".parquet", stream, [arrays], 16)
    with pytest.raises(DataError, match=r"c\.parquet: was not written by efq embed"):
        embedded(model, shards[2:], out, flip=True)


def test_shards_that_change(model: Path, shards: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    embedded(model, shards, out)
    images = [png(image) for image in make_faces(2, 3, seed=9).images]
    write_tar(shards[1], [(f"{i}.png", image) for i, image in enumerate(images)])
    assert embedded(model, shards, out) == Gallery(str(out), 3, 2, 38, 0)
    assert len(stored.read(out / "b.tar.npz")) == 6
    # another shard of the same name is not written over
    (tmp_path / "new").mkdir()
    write_tar(tmp_path / "new" / "b.tar", [("1.png", images[0])])
    with pytest.raises(DataError, match=r"b\.tar\.npz: holds the embeddings of .*b\.tar; embed"):
        embedded(model, [tmp_path / "new" / "b.tar"], out)
    assert len(stored.read(out / "b.tar.npz")) == 6
    embedded(model, [tmp_path / "new" / "b.tar"], out, force=True)
    assert len(stored.read(out / "b.tar.npz")) == 1


def test_a_bad_shard_does_not_keep_the_others(
    model: Path, shards: list[Path], tmp_path: Path
) -> None:
    out, good = tmp_path / "out", shards[1].read_bytes()
    shards[1].write_bytes(good[:1000])
    with pytest.raises(DataError, match=r"1 of 3 shards are not done, the first: .*b\.tar"):
        embedded(model, shards, out)
    assert [p.name for p in sorted(out.iterdir())] == ["a.rec.npz", "c.parquet"]
    shards[1].write_bytes(good)
    assert embedded(model, shards, out) == Gallery(str(out), 3, 2, 48, 0)


def test_unreadable_images_and_empty_shards(model: Path, tmp_path: Path, faces: FaceSet) -> None:
    image = png(faces.images[0])
    write_tar(tmp_path / "a.tar", [("1.png", image), ("2.png", image[:40]), ("3.png", image)])
    write_tar(tmp_path / "none.tar", [("1.png", b"x"), ("2.png", b"y")])
    write_tar(tmp_path / "empty.tar", [("readme.txt", b"x")])
    empty = pyarrow.table({"image": pyarrow.array([], pyarrow.binary())})
    pyarrow.parquet.write_table(empty, tmp_path / "e.parquet")
    names = [tmp_path / n for n in ("a.tar", "none.tar", "empty.tar", "e.parquet")]
    for before in (0, 4):
        found = embedded(model, names, tmp_path / "out")
        assert found == Gallery(str(tmp_path / "out"), 4, before, 2, 3)
    first = stored.read(tmp_path / "out" / "a.tar.npz")
    assert first.names == ["a.tar#1", "a.tar#3"]
    assert [name for name, _ in first.facts["skipped"]] == ["a.tar#2"]
    for name in ("empty.tar.npz", "none.tar.npz", "e.parquet"):
        assert stored.read(tmp_path / "out" / name).embeddings.shape == (0, 16)


def test_workers_of_any_scheduler(model: Path, shards: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    parts = [embedded(model, shards, out, shard=f"{i}/2") for i in (1, 2)]
    assert [p.shards for p in parts] == [2, 1]
    assert embedded(model, shards, out).before == 3
    with pytest.raises(RecipeError, match="3/2"):
        embedded(model, shards, out, shard="3/2")


KILLED = """
import os, signal, sys
from pathlib import Path
from efquantface.embedding import stored
from efquantface.verbs import gallery
real = stored.write
def dying(*args):
    real(*args)
    if sys.argv[2] in str(args[-1]["source"]):
        args[1].flush()
        print("half", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
stored.write = dying
gallery.embed_gallery("model.onnx", ["a.rec", "b.tar", "c.parquet"], sys.argv[1], quiet=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_worker_leaves_nothing_half_done(
    model: Path, shards: list[Path], tmp_path: Path
) -> None:
    source = Path(efquantface.__file__).parents[1]
    command = [sys.executable, "-c", KILLED, "out", "b.tar"]
    env = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.stdout == b"half\n", done.stderr
    assert done.returncode == -signal.SIGKILL
    out = tmp_path / "out"
    (left,) = out.glob("*.partial")
    assert sorted(p.name for p in out.iterdir() if p != left) == ["a.rec.npz"]
    assert embedded(model, shards, out) == Gallery(str(out), 3, 1, 48, 0)
    assert left.exists()  # its writer might live
    os.utime(left, (time.time() - 7200,) * 2)
    embedded(model, shards, out)
    assert len(list(out.iterdir())) == 3


def test_galleries_elsewhere(
    model: Path, shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = fsspec.filesystem("memory")
    monkeypatch.setattr(type(system), "store", {})
    monkeypatch.setattr(type(system), "pseudo_dirs", [""])
    for path in (*shards, shards[0].with_suffix(".idx")):
        system.put_file(str(path), f"/in/{path.name}")
    names = ["memory://in/*.rec", "memory://in/*.tar", "memory://in/*.parquet"]
    for before in (0, 3):
        found = embed_gallery(model, names, "memory://out/g", quiet=True)
        assert found == Gallery("memory://out/g", 3, before, 48, 0)
    system.get("/out/g", str(tmp_path / "g"), recursive=True)
    embedded(model, shards, tmp_path / "h")
    np.testing.assert_array_equal(rows_of(tmp_path / "g"), rows_of(tmp_path / "h"))
    system.put_file(str(shards[1]), "/in/b.tar")  # sent again, and the same
    assert embed_gallery(model, names, "memory://out/g", quiet=True).before == 3


def test_errors_that_end_everything(model: Path, shards: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        embedded(tmp_path / "no.onnx", shards, tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(WriteError):
        embedded(model, shards, tmp_path / "file" / "out")
    with pytest.raises(DataError, match="no file fits"):
        embed_gallery(model, str(tmp_path / "*.zip"), tmp_path / "out", quiet=True)


def test_a_run_stands_for_its_student(model: Path, shards: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    model.rename(run / "student.onnx")
    embedded(run, shards[:1], tmp_path / "out")
    assert stored.read(tmp_path / "out" / "a.rec.npz").facts["model"] == "student.onnx"


def test_nothing_imports_pytorch(model: Path, shards: list[Path], tmp_path: Path) -> None:
    code = """
import json, sys
from efquantface import embed_gallery
embed_gallery("model.onnx", ["a.rec", "b.tar"], "out", quiet=True)
print(json.dumps(list(sys.modules)))
"""
    source = Path(efquantface.__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, check=True
    )
    modules = set(json.loads(done.stdout))
    assert not modules & {"torch", "pyarrow", "fsspec", "ray", "pandas", "numba", "matplotlib"}


def test_examples(
    model: Path, shards: list[Path], tmp_path: Path, rec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.rename(tmp_path / "student.onnx")
    rec.replace(tmp_path / "a.rec")
    rec.with_suffix(".idx").replace(tmp_path / "a.idx")
    images = [png(image) for image in make_faces().images]
    write_tar(tmp_path / "b.tar", [(f"{i}.png", image) for i, image in enumerate(images)])
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(module).failed == 0
