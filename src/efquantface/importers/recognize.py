"""A checkpoint's architecture from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from efquantface.errors import ModelFileError
from efquantface.importers.dialects import DIALECTS
from efquantface.importers.naming import Dialect, NotRecognized, Tensors
from efquantface.importers.state_dicts import read_dictionaries

_LISTED, _OTHERS = 8, 3
_WAY_OUT = (
    "Export the network to ONNX with the code it comes from, or call efquantface.compress with your "
    "nn.Module"
)
_BOOKKEEPING = "num_batches_tracked"


@dataclass(frozen=True)
class Recognized:
    """A backbone with its weights.

    Attributes:
        module: in evaluation mode.
        dialect: the dialect of its names.
        prefix: of all names.
        notes: what was left out, in sentences.
    """

    module: nn.Module
    dialect: Dialect
    prefix: str
    notes: list[str]


def recognize(path: Path) -> Recognized:
    """Load a checkpoint into the backbone that its tensors' names and shapes describe.

    Raises:
        ModelFileError: the file cannot be read, or no dialect has its names. Or tensors are missing,
            unexpected or of another shape; the first of each kind are named.
    """
    dictionaries = read_dictionaries(path)
    place, dialect, prefix = _dialect(dictionaries, path)
    tensors = dictionaries[place]
    inside = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    own = {k: v for k, v in inside.items() if not k.endswith(_BOOKKEEPING)}
    unused = {k for k in own if dialect.unused and re.match(dialect.unused, k)}
    names = {dialect.rename(k): k for k in own if k not in unused}
    where = f"{path}: named like {dialect.name}, but"
    try:
        renamed = dialect.prepare({new: own[old] for new, old in names.items()})
        module = dialect.build(renamed)
    except NotRecognized as error:
        raise ModelFileError(f"{where} with {error}. {_WAY_OUT}") from None
    except KeyError as error:
        raise ModelFileError(f"{where} without {error}. {_WAY_OUT}") from None
    except (IndexError, ValueError, RuntimeError, ZeroDivisionError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelFileError(
            f"{where} with tensors of other shapes ({reason}). {_WAY_OUT}"
        ) from None
    _fill(module, renamed, where)
    outside = Counter(k.partition(".")[0] for k in tensors if not k.startswith(prefix))
    outside.update(k.partition(".")[0] for k in unused)
    notes = [f"left out: {n} tensors of {name!r}" for name, n in sorted(outside.items())]
    others = [name for name in dictionaries if name != place]
    if others:
        more = f" and {len(others) - _OTHERS} more" if len(others) > _OTHERS else ""
        shown = ", ".join(map(repr, others[:_OTHERS]))
        notes.insert(0, f"the weights are {place!r}; left out: {shown}{more}")
    return Recognized(module.eval(), dialect, prefix, notes)


def _dialect(dictionaries: Mapping[str, Tensors], path: Path) -> tuple[str, Dialect, str]:
    """The place of the first dictionary with a dialect's names, the dialect, and the names' prefix."""
    for place, tensors in dictionaries.items():
        for dialect in DIALECTS:
            for name in tensors:
                if name == dialect.signature or name.endswith("." + dialect.signature):
                    return place, dialect, name.removesuffix(dialect.signature)
    tensors = max(dictionaries.values(), key=len)
    shown = ", ".join(list(tensors)[:_LISTED])
    known = "; ".join(dict.fromkeys(d.name for d in DIALECTS))
    raise ModelFileError(
        f"{path}: {len(tensors)} tensors named {shown}, ... are of no network known here ({known}). "
        f"{_WAY_OUT}"
    )


def _fill(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load all weights, or raise an error that names what does not fit."""
    wanted = {k: v for k, v in module.state_dict().items() if not k.endswith(_BOOKKEEPING)}
    shaped = {
        k: v.reshape(wanted[k].shape) if k in wanted and _same_values(v, wanted[k]) else v
        for k, v in tensors.items()
    }
    missing = [k for k in wanted if k not in shaped]
    unexpected = [k for k in shaped if k not in wanted]
    other = [
        f"{k} {tuple(shaped[k].shape)} instead of {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in shaped and shaped[k].shape != v.shape
    ]
    problems = [
        f"{what}: {', '.join(found[:_LISTED])}"
        + (f" and {len(found) - _LISTED} more" if len(found) > _LISTED else "")
        for what, found in (("missing", missing), ("unexpected", unexpected), ("shape", other))
        if found
    ]
    if problems:
        raise ModelFileError(f"{where} {'; '.join(problems)}. {_WAY_OUT}")
    module.load_state_dict(shaped, strict=False)


def _same_values(have: Tensor, want: Tensor) -> bool:
    """Whether only axes of length 1 differ: a 1x1 convolution's weight for a linear layer, slopes."""
    return have.numel() == want.numel() and [s for s in have.shape if s != 1] == [
        s for s in want.shape if s != 1
    ]
