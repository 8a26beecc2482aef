"""The environment that numbers depend on: versions, processor, threads, runtimes, providers."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import Any

from efquantface.runtime.processor import instruction_sets, integer_sums, processor
from efquantface.runtime.sessions import default_threads

_PACKAGES = (
    "efquantface",
    "torch",
    "lightning-fabric",
    "numpy",
    "numba",
    "onnx",
    "onnxruntime",
    "openvino",
    "ncnn",
    "ai-edge-litert",
    "opencv-python-headless",
    "yuface",
    "safetensors",
)


def environment() -> dict[str, Any]:
    """Versions, processor and its integer sums, threads, runtimes; plain data for ``env.json``."""
    import onnxruntime as ort

    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": processor(),
        "instruction_sets": instruction_sets(),
        "integer_sums": integer_sums(),
        "threads": default_threads(),
        **_torch(),
        "onnxruntime_providers": ort.get_available_providers(),
        "openvino_devices": _openvino_devices(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> dict[str, str | None]:
    """The CPU's capability and the GPU in PyTorch; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return {"torch_capability": None, "cuda": None}
    return {
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _openvino_devices() -> list[str]:
    try:
        import openvino as ov
    except ImportError:
        return []
    return list(ov.Core().available_devices)
