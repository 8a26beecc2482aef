"""What is imported when, and what works without the packages that only compression needs.

Each test is a process of its own: the suite has everything imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import efquantface
from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.data.images import write_image
from efquantface.export.onnx_writer import write_onnx
from efquantface.formats.litert.model import to_litert
from efquantface.importers.load import load_model

HEAVY = ("torch", "lightning_fabric", "matplotlib", "onnx", "onnxruntime", "scipy.stats", "numba")
TORCH = (
    "torch",
    "lightning_fabric",
    "matplotlib",
    "numba",
    "jinja2",
    "torch_pruning",
    "safetensors",
)
BLOCK = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {TORCH!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def run(code: str, folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Python code in a fresh process, whose working directory is ``folder``."""
    source = Path(efquantface.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=folder,
        env={"PYTHONPATH": str(source), "PATH": "", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def imported(code: str, folder: Path) -> set[str]:
    """Modules that are there after ``code``."""
    done = run(f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))", folder)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@dataclass
class Done:
    code: int
    out: str
    err: str


VERBS = """
import contextlib, io, json
from efquantface.cli.main import main
for words in json.loads(sys.argv[1]):
    sys.argv, out, err, code = ["efq", *words], io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as done:
            code = int(done.code or 0)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def efq(folder: Path, *verbs: str) -> list[Done]:
    """Verbs where compression's packages cannot be imported, one after the other."""
    done = run(BLOCK + VERBS, folder, json.dumps([verb.split() for verb in verbs]))
    assert done.returncode == 0, done.stderr
    return [Done(*json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, network: nn.Module, contract: FaceContract) -> Path:
    """A float ONNX file, faces, and pairs of them."""
    write_onnx(load_model(network, contract=contract), tmp_path / "m.onnx")
    faces = make_faces(24, 3)
    for name, image in zip(faces.names, faces.images, strict=True):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, image)
    return tmp_path


def test_the_package_alone(tmp_path: Path) -> None:
    assert not imported("import efquantface; efquantface.__version__", tmp_path) & set(HEAVY)


def test_embedding_and_evaluating(folder: Path) -> None:
    embed = """
from efquantface import Embedder, evaluate
import numpy as np
rows = Embedder.open("m.onnx").embed(np.zeros((3, 32, 32, 3), np.uint8))
assert rows.shape == (3, 16)
"""
    assert not imported(embed, folder) & set(TORCH)
    score = 'results = evaluate("m.onnx", "folder=faces", quiet=True); assert results[0].metrics'
    assert not imported(embed + score, folder) & set(TORCH)


def test_names_are_there_for_everyone(tmp_path: Path) -> None:
    assert set(efquantface.__all__) <= set(dir(efquantface))
    for name in efquantface.__all__:
        assert getattr(efquantface, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'compres'"):
        _ = efquantface.compres
    from efquantface import errors

    kinds = {
        n
        for n, v in vars(errors).items()
        if isinstance(v, type) and v.__module__ == errors.__name__
    }
    assert kinds <= set(efquantface.__all__)
    assert (Path(efquantface.__file__).parent / "py.typed").is_file()


def test_the_file_of_a_phone_without_pytorch(folder: Path) -> None:
    (folder / "m.tflite").write_bytes(to_litert(load_model(folder / "m.onnx")))
    done = efq(
        folder,
        "embed m.tflite faces -o e.npz",
        "evaluate m.onnx --against m.tflite --eval folder=faces",
        "benchmark m.tflite --rounds 2 --batch 1 --batch 3",
        "inspect m.tflite",
        "evaluate m.tflite --backend onnxruntime --eval folder=faces",
    )
    assert [d.code for d in done] == [0, 0, 0, 0, 2], [d.err for d in done]
    assert "litert" in done[0].out
    assert "contract: 32x32 RGB" in done[3].out
    assert "--backend litert" in done[4].err
    with np.load(folder / "e.npz") as found:
        assert found["embeddings"].shape == (72, 16)


def test_verbs_without_pytorch(folder: Path) -> None:
    done = efq(
        folder,
        "embed m.onnx faces -o e.npz",
        "embed m.onnx faces -o gallery --embedding int8 --shard 1/1",
        "compare-gallery m.onnx m.onnx --sample faces --far 0.01",
        "evaluate m.onnx --against m.onnx --eval folder=faces",
        "benchmark m.onnx --against m.onnx --rounds 2 --batch 1",
        "data inspect faces",
        "data subset faces -o few.txt --size 12 --by coverage --teacher m.onnx",
        "data check faces --teacher m.onnx -o out.txt",
        "env",
    )
    assert [d.code for d in done] == [0] * 9, [d.err for d in done]
    done = [done[0], *done[3:]]
    assert np.load(folder / "gallery" / "faces.npz")["embeddings"].dtype == np.int8
    assert np.load(folder / "e.npz")["embeddings"].shape == (72, 16)
    assert "TAR" in done[1].out
    assert "ms" in done[2].out
    listed = (folder / "few.txt").read_text().splitlines()
    assert sum(line.startswith("faces/") for line in listed) == 12
    assert json.loads(done[-1].out)["torch_capability"] is None


def test_inspect_says_what_the_file_says(folder: Path) -> None:
    plain, layers = efq(folder, "inspect m.onnx", "inspect m.onnx --layers")
    assert plain.code == 0, plain.err
    assert "32x32 RGB, (x - 127.5) / 127.5" in plain.out
    assert "5 Conv" in plain.out
    assert "pip install 'efquantface[compress]'" in plain.out
    assert layers.code == 2
    assert "pip install 'efquantface[compress]'" in layers.err


def test_the_rest_says_what_to_install(folder: Path) -> None:
    (folder / "net.safetensors").write_bytes(b"x")
    verbs = (
        "compress m.onnx faces -o run",
        "embed net.safetensors faces -o f.npz",
        "export m.onnx --float -o n.onnx",
        "inspect net.safetensors",
        "demo",
    )
    for verb, done in zip(verbs, efq(folder, *verbs), strict=True):
        assert done.code == 2, (verb, done.err)
        assert "pip install 'efquantface[compress]'" in done.err
        assert "download.pytorch.org/whl/cpu" in done.err
    assert not (folder / "run").exists()


def test_a_name_that_needs_pytorch(tmp_path: Path) -> None:
    code = """
import efquantface
try:
    efquantface.compress
except efquantface.EfqError as error:
    print(error)
"""
    assert "efquantface.compress needs " in run(BLOCK + code, tmp_path).stdout
