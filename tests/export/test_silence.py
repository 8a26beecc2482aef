"""No file that is written makes a plain session print a word."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from conftest import SIZE, SmallFaceNet, make_faces, randomize
from efquantface.backbones.edgeface import EdgeFace, EdgeFaceConfig
from efquantface.contract import FaceContract
from efquantface.export.onnx_writer import to_onnx, write_onnx
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.prune.prune import prune
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from students import student_of

CONTRACT = FaceContract(SIZE, SIZE, 16, template="unknown")
PLAIN = """
import sys
import numpy as np
import onnxruntime
for path in sys.argv[1:]:
    print(path, file=sys.stderr)
    session = onnxruntime.InferenceSession(path)
    source = session.get_inputs()[0]
    shape = [2, *source.shape[1:]]
    session.run(None, {source.name: np.zeros(shape, np.float32)})
"""


def edgeface(bits: str) -> FaceModel:
    """A student with islands of float."""
    torch.manual_seed(0)
    config = EdgeFaceConfig(widths=(8, 16, 16, 24), depths=(1, 1, 1, 1), heads=2)
    model = load_model(EdgeFace(config).eval(), contract=FaceContract(112, 112, 512))
    made = quantize(model, Scheme.parse(bits))
    set_ranges(made.graph, [torch.randint(0, 256, (2, 3, 112, 112))])
    return made


def small(bits: str = "w8a8", preprocess: str = "insightface", **options: bool) -> FaceModel:
    """A student of the small face network."""
    contract = CONTRACT.with_preprocess(preprocess)
    return student_of(randomize(SmallFaceNet()), contract, bits, **options)[1]


def pruned() -> FaceModel:
    """A float network with fewer channels."""
    model = load_model(randomize(SmallFaceNet()), contract=CONTRACT)
    pixels = torch.from_numpy(CONTRACT.pixels(make_faces().images)).float()
    return prune(model, [pixels], 0.3, round_to=2).model


KINDS: dict[str, Callable[[], FaceModel]] = {
    **{bits: partial(small, bits) for bits in ("w8a8", "w7a8", "w6a8", "w4a8", "w6a6", "w4a4")},
    "full range": partial(small, full_range=True),
    "symmetric": partial(small, symmetric=True),
    "symmetric w4a4": partial(small, "w4a4", symmetric=True),
    "imagenet": partial(small, "w6a8", "imagenet"),
    "raw": partial(small, "w8a8", "raw"),
    "float": lambda: load_model(randomize(SmallFaceNet()), contract=CONTRACT),
    "pruned": pruned,
    "islands": partial(edgeface, "w8a8"),
    "islands w6a8": partial(edgeface, "w6a8"),
    "islands w4a8": partial(edgeface, "w4a8"),
}


def said_by_plain_sessions(*paths: Path) -> str:
    """What a process prints that opens files and runs each once, but for their names."""
    command = [sys.executable, "-c", PLAIN, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line not in map(str, paths)]
    return "\n".join(lines) + done.stdout


def test_plain_sessions_are_silent(tmp_path: Path) -> None:
    paths = []
    for kind, make in KINDS.items():
        model = make()
        for packed in (True, False):
            paths.append(tmp_path / f"{kind}{'' if packed else ' unpacked'}.onnx")
            write_onnx(model, paths[-1], packed=packed)
    for symmetric in (False, True):
        paths.append(tmp_path / f"scales {symmetric}.onnx")
        deliver(small(symmetric=symmetric), FORMATS["scales"], paths[-1])
    assert said_by_plain_sessions(*paths) == ""


def test_a_warning_would_be_seen(tmp_path: Path) -> None:
    """A constant that no operator reads makes a session speak."""
    file = to_onnx(small())
    file.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "unread"))
    path = tmp_path / "unread.onnx"
    onnx.save(file, str(path))
    assert "unread" in said_by_plain_sessions(path)
