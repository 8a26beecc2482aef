"""Optional parts of the package: a missing one is said in words, with the command that installs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from efquantface.errors import MissingPackageError

CPU_TORCH = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
_COMPRESS = (
    *("torch", "lightning_fabric", "torch_pruning", "safetensors"),
    *("numba", "jinja2", "matplotlib"),
)
_EXTRA_OF = {
    **dict.fromkeys(_COMPRESS, "compress"),
    "yuface": "align",
    "openvino": "openvino",
    "ai_edge_litert": "litert",
    "flatbuffers": "litert",
    "pyarrow": "parquet",
    "ncnn": "ncnn",
    "fsspec": "gallery",
    "ray": "ray",
    "pandas": "ray",
}


@contextmanager
def wanted_for(what: str) -> Iterator[None]:
    """Around imports of optional packages: says ``what`` needs them where one is missing.

    Raises:
        MissingPackageError: a package of an extra is not installed; other import errors pass.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_OF:
            raise
        raise MissingPackageError(
            f"{what} needs {package}: {command(_EXTRA_OF[package])}"
        ) from None


def command(extra: str) -> str:
    """How to install an extra; PyTorch's own wheels for CPUs spare gigabytes of CUDA."""
    install = f"pip install 'efquantface[{extra}]'"
    return (
        f"{install} (for PyTorch without CUDA, first: {CPU_TORCH})"
        if extra == "compress"
        else install
    )
