"""Extras of the package: the error for a missing one has the command that installs it."""

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
    """A context for imports of optional packages; ``what`` names the user of a missing one.

    Raises:
        MissingPackageError: a package of an extra is not installed. Other import errors pass.
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
    """The command that installs an extra. PyTorch's wheels for CPUs save gigabytes of CUDA."""
    install = f"pip install 'efquantface[{extra}]'"
    return (
        f"{install} (for PyTorch without CUDA, first: {CPU_TORCH})"
        if extra == "compress"
        else install
    )
