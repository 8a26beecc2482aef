"""Reads PyTorch and safetensors checkpoints as plain tensors. Nothing in them is executed."""

from __future__ import annotations

import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from efquantface.errors import ModelFileError
from efquantface.text import utf8_name

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".pkl", ".safetensors")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "backbone", "net", "network", "encoder")
# what training checkpoints hold beside tensors, and what only carries values
_PLAIN: list[Any] = [
    Namespace,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
]
_FEW = 4  # fewer tensors are no network


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, as float32 where they are floating point, on the CPU.

    A state dict inside a training checkpoint (Lightning and others) is found.

    Raises:
        ModelFileError: the file is damaged, holds a pickled module or a TorchScript program, or no
            state dict.
    """
    if path.suffix == ".safetensors":
        return _as_floats(_read_safetensors(path))
    if _is_torchscript(path):
        raise ModelFileError(
            f"{path}: a TorchScript program, not weights. In Python: torch.save(torch.jit.load("
            f"{path.name!r}).state_dict(), 'weights.pth'), and give that file"
        )
    try:
        with torch.serialization.safe_globals(_PLAIN):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelFileError(
            f"{path}: holds more than tensors ({_reason(error)}), and loading it would run code from "
            "the file. Where it comes from a source you trust, save its weights alone: "
            f"m = torch.load({path.name!r}, weights_only=False); "
            "torch.save(getattr(m, 'state_dict', lambda: m['state_dict'])(), 'weights.pth')"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise ModelFileError(f"{path}: not a readable PyTorch file ({_reason(error)})") from None
    found = _state_dict(stored)
    if found is None:
        keys = list(stored)[:8] if isinstance(stored, Mapping) else type(stored).__name__
        raise ModelFileError(f"{path}: no state dict in it (it holds {keys})")
    return _as_floats(found)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(utf8_name(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: not a readable safetensors file ({error})") from None


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _state_dict(stored: Any, depth: int = 3) -> dict[str, Tensor] | None:
    """The first dictionary of tensors in what was stored, looking into the usual wrappers first."""
    if not isinstance(stored, Mapping):
        return None
    tensors = {str(k): v for k, v in stored.items() if isinstance(v, Tensor)}
    if len(tensors) >= _FEW:
        return tensors
    if depth == 0:
        return None
    order = sorted(stored, key=lambda k: _WRAPPERS.index(k) if k in _WRAPPERS else len(_WRAPPERS))
    return next(
        (found for k in order if (found := _state_dict(stored[k], depth - 1)) is not None), None
    )


def _as_floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def _reason(error: Exception) -> str:
    """The sentence of an error of torch.load that names what it met."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    return (named or lines or [type(error).__name__])[0][:200]
