"""Reads PyTorch and safetensors checkpoints as plain tensors. Nothing in them is executed."""

from __future__ import annotations

import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from efquantface.errors import ModelFileError
from efquantface.stored import HoldsCode, load_stored
from efquantface.text import utf8_name

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".pkl", ".safetensors")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "backbone", "net", "network", "encoder")
# types that training checkpoints hold beside tensors
_PLAIN: list[Any] = [
    Namespace,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
]
_FEW = 4  # tensors of a network, at least


def read_dictionaries(path: Path) -> dict[str, dict[str, Tensor]]:
    """All dictionaries of tensors in a checkpoint, by their place in it, the likeliest first.

    Floating-point tensors are float32; all are on the CPU. Training checkpoints hold several
    dictionaries: the network, a head, the optimizer's state. The place of a file's only one is ``""``.

    Raises:
        ModelFileError: the file is damaged, is a pickled module or a TorchScript program, or holds no
            state dict.
    """
    if path.suffix == ".safetensors":
        return {"": _as_floats(_read_safetensors(path))}
    if _is_torchscript(path):
        raise ModelFileError(
            f"{path}: a TorchScript program, not weights. In Python: torch.save(torch.jit.load("
            f"{path.name!r}).state_dict(), 'weights.pth'), and give that file"
        )
    try:
        stored = load_stored(path, _PLAIN)
    except HoldsCode as error:
        raise ModelFileError(
            f"{path}: holds more than tensors ({error}), and loading it would run code from "
            "the file. Where it comes from a source you trust, save its weights alone: "
            f"m = torch.load({path.name!r}, weights_only=False); "
            "torch.save(getattr(m, 'state_dict', lambda: m['state_dict'])(), 'weights.pth')"
        ) from None
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{path}: not a readable PyTorch file ({error})") from None
    found = _dictionaries(stored)
    if not found:
        keys = list(stored)[:8] if isinstance(stored, Mapping) else type(stored).__name__
        raise ModelFileError(
            f"{path}: no state dict in it (it holds {keys}); in Python: "
            "torch.save(network.state_dict(), 'weights.pth'), and give that file"
        )
    return {place: _as_floats(tensors) for place, tensors in found.items()}


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
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # the reader of the file says what it is


def _dictionaries(stored: Any, place: str = "", depth: int = 3) -> dict[str, dict[str, Tensor]]:
    """Dictionaries of tensors in a stored object, the usual wrappers first."""
    if isinstance(stored, list | tuple):  # (epoch, weights)
        stored = dict(enumerate(stored))
    if not isinstance(stored, Mapping):
        return {}
    tensors = {str(k): v for k, v in stored.items() if isinstance(v, Tensor)}
    found = {place: tensors} if len(tensors) >= _FEW else {}
    if depth == 0:
        return found
    order = sorted(stored, key=lambda k: _WRAPPERS.index(k) if k in _WRAPPERS else len(_WRAPPERS))
    for key in order:
        found |= _dictionaries(stored[key], f"{place}.{key}".lstrip("."), depth - 1)
    return found


def _as_floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
