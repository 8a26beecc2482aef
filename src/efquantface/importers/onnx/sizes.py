"""What a file does not declare, measured: height and width, the embedding's size, which output it is.

ONNX Runtime runs the file on blank crops. A network that pools its maps takes crops of any size. One
with a dense layer behind a map takes crops of one size, which is found by trying.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from efquantface.errors import ContractError, ModelFileError
from efquantface.importers.onnx.image_input import ImageInput
from efquantface.runtime.sessions import onnxruntime_session, run_quietly

DEFAULT_SIZE = 112
_COMMON = (112, 160, 128, 96, 224, 150, 64, 80, 100, 120, 144, 192, 256, 299, 48, 32)
_LARGEST = 320

Size = tuple[int, int]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Settled:
    """Height and width of a file's crops.

    Attributes:
        open: neither file nor user gives them, and the file takes any.
        notes: how they were found, in sentences; empty where the file declares them.
    """

    size: Size
    open: bool = False
    notes: list[str] = field(default_factory=list)


class Probe:
    """A file in ONNX Runtime, run on blank crops. It is loaded at the first question."""

    def __init__(self, path: Path, model: onnx.ModelProto, image: ImageInput) -> None:
        self.path, self.model, self.image = path, model, image
        self._seen: dict[Size, dict[str, Shape] | None] = {}

    @cached_property
    def _session(self) -> Any:
        try:
            return onnxruntime_session(self.path if self.path.is_file() else self._bytes())
        except ModelFileError:
            return None

    def _bytes(self) -> bytes:
        return bytes(self.model.SerializeToString())

    @property
    def runs(self) -> bool:
        """Whether ONNX Runtime loads the file at all."""
        return self._session is not None

    def shapes(self, size: Size) -> dict[str, Shape] | None:
        """Shapes of outputs by name for one crop of this size; None where the file does not run."""
        if not self.runs:
            return None
        if size not in self._seen:
            crop = self.image.crop(0, size)
            crop = np.repeat(crop, self.image.layout.batch or 1, axis=0)
            names = [output.name for output in self._session.get_outputs()]
            try:
                found = run_quietly(self._session, {self.image.name: crop})
            except Exception:  # ONNX Runtime raises classes of its own
                self._seen[size] = None
            else:
                self._seen[size] = {n: np.shape(v) for n, v in zip(names, found, strict=True)}
        return self._seen[size]

    def takes(self, size: Size, outputs: list[str]) -> bool:
        """Whether crops of this size give an embedding at one of ``outputs``."""
        found = self.shapes(size)
        return found is not None and any(self.width(name, size) for name in outputs)

    def width(self, output: str, size: Size) -> int:
        """Values per face of an output; 0 where it is no embedding, or the file does not run."""
        shape = (self.shapes(size) or {}).get(output)
        if shape is None:
            return 0
        batch = self.image.layout.batch or 1
        if batch > 1 and shape[:1] != (batch,):
            return 0
        values = prod(shape) // batch
        return (
            values if values == max(shape[1:] if shape[:1] == (batch,) else shape, default=0) else 0
        )


def settle(probe: Probe, outputs: list[str], wanted: Size | None) -> Settled:
    """Height and width of a file's crops: declared, wanted, found by trying, or open.

    Args:
        probe: the file.
        outputs: names of outputs that may be the embedding.
        wanted: given by the user, or by crops; None where neither.

    Raises:
        ContractError: the file takes crops of another size than wanted.
        ModelFileError: a dense layer needs a size that was not found.
    """
    layout, path = probe.image.layout, probe.path
    if layout.height and layout.width:
        declared = (layout.height, layout.width)
        if wanted not in (None, declared):
            raise ContractError(f"{path}: takes {_said(declared)} crops, not {_said(wanted)}")
        return Settled(declared)
    if wanted is not None and (not probe.runs or _fits(layout, wanted, probe, outputs)):
        return Settled(
            wanted, notes=[f"height and width are not in the file: {_said(wanted)} taken"]
        )
    if not probe.runs:
        guess = layout.height or DEFAULT_SIZE, layout.width or DEFAULT_SIZE
        return Settled(guess, True, [_open_note(guess)])
    found = [size for size in _tried(layout, _COMMON[:2]) if probe.takes(size, outputs)]
    if len(found) == 2:
        return Settled(found[0], True, [_open_note(found[0])])
    if not found:
        trials = (size for size in _all(layout) if probe.takes(size, outputs))
        found = [size for size in [next(trials, None)] if size is not None]
    if not found:
        raise ModelFileError(
            f"{path}: height and width are not declared, and it runs with none of the usual sizes; say "
            "--size (160, or HEIGHTxWIDTH)"
        )
    if wanted is not None:
        raise ContractError(f"{path}: takes {_said(found[0])} crops, not {_said(wanted)}")
    note = f"height and width are not in the file: {_said(found[0])}, which its dense layer takes"
    return Settled(found[0], notes=[note])


def _fits(layout: Any, wanted: Size, probe: Probe, outputs: list[str]) -> bool:
    declared = (layout.height or wanted[0], layout.width or wanted[1])
    return declared == wanted and probe.takes(wanted, outputs)


def _tried(layout: Any, sides: tuple[int, ...]) -> Iterator[Size]:
    for side in sides:
        yield layout.height or side, layout.width or side


def _all(layout: Any) -> Iterator[Size]:
    """Sizes to try, the usual ones first."""
    yield from _tried(layout, _COMMON)
    yield from ((112, 96), (96, 112), (128, 112), (112, 128), (144, 128), (128, 144), (160, 128))
    yield from _tried(layout, tuple(range(16, _LARGEST + 1, 4)))


def _said(size: Size) -> str:
    """A size in words, width first."""
    return f"{size[1]}x{size[0]}"


def _open_note(size: Size) -> str:
    return (
        f"height and width are not in the file, and it takes any: {_said(size)} until crops or --size "
        "say otherwise"
    )
