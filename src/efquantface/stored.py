"""Reads files of ``torch.save`` as tensors and plain data; nothing in them is executed.

PyTorch's own reader (``weights_only``) decides what is built. This module refuses files that take far
more memory than they have bytes.
"""

from __future__ import annotations

import mmap
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing this module must not import PyTorch
    from torch import Tensor

_TIMES, _SPARE = 8, 16 << 20  # a file may take 8 times its bytes, and 16 MB more
_REPEATS = b"bytearray"  # from one number in the file it makes as many bytes


class HoldsCode(ValueError):
    """A file holds something other than tensors and plain data."""


def load_stored(path: Path, plain: Sequence[Any] = ()) -> Any:
    """Read a file of ``torch.save``; all tensors are on the CPU.

    Args:
        path: the file.
        plain: classes that it may hold besides tensors, numbers, texts and containers.

    Raises:
        HoldsCode: it holds other classes.
        ValueError: it is damaged, or unpacks to far more bytes than it has. The text has no path.
        OSError: it cannot be read.
    """
    import torch

    most = _TIMES * path.stat().st_size + _SPARE
    _check_packed(path)
    try:
        with (
            warnings.catch_warnings(),
            _named_only(),
            torch.serialization.safe_globals(list(plain)),
        ):
            warnings.simplefilter("ignore")  # about files that are refused below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise HoldsCode(_reason(error)) from None
    except OSError:
        raise
    except Exception as error:  # for damaged files the reader raises many kinds, AssertionError too
        raise ValueError(_reason(error)) from None
    held = 0
    for tensor in _tensors(found):
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise ValueError(f"a tensor of another kind ({tensor.layout}, {tensor.device})")
        held += tensor.numel() * tensor.element_size()
    if held > most:
        raise ValueError(f"its tensors claim {held:,} bytes, the file has {path.stat().st_size:,}")
    return found


@contextmanager
def _named_only() -> Iterator[None]:
    """Shortens storages in the reader's errors, since writing out a million numbers takes seconds."""
    import torch

    kinds: tuple[Any, ...] = (torch.TypedStorage, torch.storage._StorageBase)
    before = [kind.__str__ for kind in kinds]
    try:
        for kind in kinds:
            kind.__str__ = lambda self: f"<{type(self).__name__}>"
        yield
    finally:
        for kind, written in zip(kinds, before, strict=True):
            kind.__str__ = written


def check_unpacked(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse a zip file that unpacks to far more bytes than it has.

    Raises:
        ValueError: it does; the text has the sizes and no path.
    """
    size = path.stat().st_size
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _TIMES * size + _SPARE:
        raise ValueError(f"it unpacks to {unpacked:,} bytes, the file has {size:,}")


def _check_packed(path: Path) -> None:
    """Check a file before anything in it is unpacked.

    Raises:
        HoldsCode: it makes a bytearray, whose size one number decides.
        ValueError: it is empty or damaged, or unpacks to too much.
    """
    with path.open("rb") as stream:
        head = stream.read(4)
        if not head:
            raise ValueError("it is empty")
        if not head.startswith(b"PK"):
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                asks = data.find(_REPEATS) >= 0
        else:
            asks = _asks(path)
    if asks:
        raise HoldsCode("a bytearray")


def _asks(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive, path)
            pickles = [m for m in archive.infolist() if m.filename.endswith(".pkl")]
            return any(_REPEATS in archive.read(member) for member in pickles)
    except (ValueError, OSError):
        raise
    except Exception as error:  # zipfile and what it unpacks with raise many kinds
        raise ValueError(str(error) or type(error).__name__) from None


def _tensors(stored: Any) -> Iterator[Tensor]:
    """All tensors in nested containers; each container is visited once."""
    import torch

    pending, seen = [stored], set[int]()
    while pending:
        value = pending.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            pending += value.values() if isinstance(value, Mapping) else value


def _reason(error: Exception) -> str:
    """The line of an error of torch.load that names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    return (named or lines or [type(error).__name__])[0][:200]
