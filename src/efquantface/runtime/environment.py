"""What a number depends on: versions, instruction sets, threads, runtimes and providers."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from efquantface.distill.trainer import has_compiler
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
    "opencv-python-headless",
    "yuface",
    "safetensors",
)
_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
)
_ARM_FLAGS = ("asimd", "asimddp", "i8mm", "sve")


def environment() -> dict[str, Any]:
    """Versions, processor, instruction sets, threads, runtimes; plain data for ``env.json``."""
    import onnxruntime as ort

    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": processor(),
        "instruction_sets": instruction_sets(),
        "threads": default_threads(),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "compiler": has_compiler(),
        "onnxruntime_providers": ort.get_available_providers(),
        "openvino_devices": _openvino_devices(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def processor() -> str:
    """The processor's name as the system tells it."""
    for key, value in _cpuinfo():
        if key in ("model name", "Model"):
            return value
    return platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """The instruction sets that matter for integer kernels, of those the processor has."""
    for key, value in _cpuinfo():
        if key in ("flags", "Features"):
            present = set(value.split())
            return [flag for flag in _FLAGS + _ARM_FLAGS if flag in present]
    return []


def _cpuinfo() -> list[tuple[str, str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return [(key.strip(), value.strip()) for key, value in pairs]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _openvino_devices() -> list[str]:
    try:
        import openvino as ov
    except ImportError:
        return []
    return list(ov.Core().available_devices)
