"""Small networks as exporters write them, and the two things every kind of network is tested for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from conftest import SIZE, make_faces, randomize
from efquantface.console import Console
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.parity import Parity, check_parity
from efquantface.graph.graph import module_nodes
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.importers.onnx.importer import import_onnx
from efquantface.pipeline.start import make_start
from efquantface.quantize.placement import refresh_biases
from efquantface.quantize.scheme import Bits, Scheme

CROPS = 12


class Fn(nn.Module):
    """A function of a tensor, with modules that it may call."""

    def __init__(self, call: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.call, self.parts = call, nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.parts, x) if self.parts else self.call(x)


def around(*body: nn.Module, channels: int = 8) -> nn.Sequential:
    """A stem, what is tested on maps (N,channels,16,16), a layer behind it, an embedding of 16."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
        *body,
        nn.Conv2d(channels, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 16),
    )  # fmt: skip


def behind(*body: nn.Module) -> nn.Sequential:
    """Layers on (N,64) values behind a convolution and a pooling."""
    stem = (nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(*stem, *body)


def export(module: nn.Module, path: Path, opset: int = 17, seed: int = 0) -> Path:
    """Written by PyTorch, with any batch."""
    torch.manual_seed(seed)
    randomize(module, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.randn(1, 3, SIZE, SIZE),), str(path), dynamo=False, opset_version=opset,
            input_names=["in"], output_names=["out"],
            dynamic_axes={"in": {0: "batch"}, "out": {0: "batch"}},
        )  # fmt: skip
    return path


def same_as_onnxruntime(path: Path) -> list[str]:
    """Compare the import with the file itself, one crop and several; returns kinds of operators."""
    session = ort.InferenceSession(str(path))
    source = session.get_inputs()[0]
    shape = [
        d if isinstance(d, int) else n
        for d, n in zip(source.shape, (1, 3, SIZE, SIZE), strict=True)
    ]
    graph = import_onnx(path).graph
    for count in (1, 3) if not isinstance(source.shape[0], int) else (1,):
        x = np.random.default_rng(count).normal(0, 1, (count, *shape[1:])).astype(np.float32)
        wanted = session.run(None, {source.name: x})[0]
        with torch.no_grad():
            found = graph(torch.from_numpy(x)).numpy()
        wanted = wanted.reshape(found.shape)
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
        assert np.abs(wanted).max() > 1e-3
    return [type(module).__name__ for _, module in module_nodes(graph)]


def student_of_file(path: Path, bits: str = "w8a8") -> tuple[FaceModel, FaceModel, Parity]:
    """Teacher and student, not trained, of a file, and whether the student's own file computes it."""
    teacher = load_model(path, preprocess="insightface")
    crops = make_faces(CROPS, 1, size=teacher.contract.height).images
    pixels = torch.from_numpy(teacher.contract.pixels(crops))
    scheme = Scheme(Bits.parse(bits))
    student = make_start(teacher, [pixels], scheme, None, 0, Console(quiet=True)).student
    refresh_biases(student.graph)
    written = path.with_suffix(".student.onnx")
    write_onnx(student, written)
    wanted = teacher.embed_pixels(pixels).numpy()
    return teacher, student, check_parity(student, written, crops, wanted)


def check(path: Path, bits: str = "w8a8", least: float = 0.98) -> tuple[list[str], Parity]:
    """Both: the import equals the file, and a student of the file passes parity and is near it."""
    kinds = same_as_onnxruntime(path)
    _, _, parity = student_of_file(path, bits)
    assert parity.problems == []
    assert parity.student_cosine > least
    return kinds, parity
