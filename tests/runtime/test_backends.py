"""Which runtime opens a file, and what is said where the wanted one does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from efquantface.errors import RuntimeMissingError
from efquantface.runtime.backends import NAMES, backend_for, own_backend


@pytest.mark.parametrize(
    ("file", "wanted", "found"),
    [
        ("a.onnx", "auto", "onnxruntime"),
        ("a.onnx", "onnxruntime", "onnxruntime"),
        ("a.onnx", "openvino", "openvino"),
        ("a.onnx", "torch", None),
        ("a.xml", "auto", "openvino"),
        ("a.tflite", "auto", "litert"),
        ("a.tflite", "litert", "litert"),
        ("a.pth", "auto", None),
        ("a.safetensors", "onnxruntime", None),
    ],
)
def test_a_file_has_its_runtime(file: str, wanted: str, found: str | None) -> None:
    backend = backend_for(Path(file), wanted)
    assert (None if backend is None else backend.name) == found


@pytest.mark.parametrize(
    ("file", "wanted"),
    [("a.tflite", "torch"), ("a.tflite", "openvino"), ("a.xml", "litert"), ("a.onnx", "litert")],
)
def test_another_runtime_is_refused(file: str, wanted: str) -> None:
    own = own_backend(Path(file))
    assert own is not None
    with pytest.raises(RuntimeMissingError, match=f"{file}: is opened by --backend {own.name}"):
        backend_for(Path(file), wanted)


def test_names() -> None:
    assert NAMES == ("auto", "onnxruntime", "openvino", "litert", "torch")
