"""What ``torch.save`` wrote, as tensors and plain data: nothing in it is executed.

PyTorch's own reader of plain data (``weights_only``) decides what is built; here is seen to that a small
file stays small in memory.
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

if TYPE_CHECKING:  # a light module, so that importing it costs nothing
    from torch import Tensor

_TIMES, _SPARE = 8, 16 << 20  # a file may give so many times its bytes, and so many bytes
_REPEATS = b"bytearray"  # one number in the file makes as many bytes of it


class HoldsCode(ValueError):
    """A file holds more than tensors and plain data."""


def load_stored(path: Path, plain: Sequence[Any] = ()) -> Any:
    """Read a file of ``torch.save``; tensors on the CPU, whatever they were saved from.

    Args:
        path: the file.
        plain: classes that it may hold beside tensors, numbers, texts and containers.

    Raises:
        HoldsCode: it holds other classes.
        ValueError: it is damaged, or unpacks to far more than it has bytes; no path in the text.
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
            warnings.simplefilter("ignore")  # of what is refused in the next line
            found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise HoldsCode(_reason(error)) from None
    except OSError:
        raise
    except Exception as error:  # the reader raises many kinds for damaged files, and asserts
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
    """Storages are named in the reader's errors: written out, a million numbers take seconds."""
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
    """Refuse a zip file that unpacks to far more than it has bytes.

    Raises:
        ValueError: saying how much; no path in the text.
    """
    size = path.stat().st_size
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _TIMES * size + _SPARE:
        raise ValueError(f"it unpacks to {unpacked:,} bytes, the file has {size:,}")


def _check_packed(path: Path) -> None:
    """What can be seen before anything is unpacked.

    Raises:
        ValueError: an archive that unpacks to too much, or a file that asks for bytes by their number.
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
    """All tensors in lists and dictionaries; each container once, however often it is named."""
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
    """The sentence of an error of torch.load that names what it met."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    return (named or lines or [type(error).__name__])[0][:200]
