"""FaceContract: the crops that a network expects. Every model file carries it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

from efquantface.errors import ContractError, did_you_mean
from efquantface.reading import parse_json

if TYPE_CHECKING:  # contracts are used where NumPy is not imported
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

Color = Literal["RGB", "BGR"]
_SIZE = re.compile(r"([0-9]{1,5})(?:x([0-9]{1,5}))?")
LARGEST_SIDE = 2048  # pixels of a crop; a face network takes 112 to 256
LONGEST_EMBEDDING = 1 << 20
TEMPLATES = ("arcface112", "dlib150", "unknown")

# preprocessing of model families by their names on the command line: color, mean, std
PREPROCESS: dict[str, tuple[Color, tuple[float, float, float], tuple[float, float, float]]] = {
    "insightface": ("RGB", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "adaface": ("BGR", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "imagenet": ("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "raw": ("RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "raw-bgr": ("BGR", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "unit": ("RGB", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "unit-bgr": ("BGR", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "facenet": ("RGB", (127.5, 127.5, 127.5), (128.0, 128.0, 128.0)),
}

METADATA_KEY = "efquantface.contract"
ASSUMED = "assumed"  # a contract whose source begins so has to be tested on faces


@dataclass(frozen=True)
class FaceContract:
    """Preprocessing and shape of a face-recognition network, as data.

    A uint8 RGB crop of ``height x width`` becomes the network's float input as
    ``(pixel - mean) / std`` per channel after reordering to ``color``, in NCHW layout.

    Attributes:
        height, width: crop size in pixels.
        color: channel order of the network's input.
        mean, std: per-channel constants in grey levels (0..255), in the order of ``color``.
        template: landmark template that crops are aligned to.
        embedding_size: length D of the embedding.
        input_name, output_name: names in the deployed file; a student keeps its teacher's.
        source: how the contract was found ("declared", "graph constants", "assumed", ...).
        licence: the teacher's licence note, if one was given.
    """

    height: int
    width: int
    embedding_size: int
    color: Color = "RGB"
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)
    template: str = "arcface112"
    input_name: str = "input"
    output_name: str = "embedding"
    source: str = "declared"
    licence: str = ""

    def __post_init__(self) -> None:
        sizes = (self.height, self.width, self.embedding_size)
        if not all(isinstance(v, Integral) and not isinstance(v, bool) for v in sizes):
            raise ContractError(f"contract sizes must be whole numbers, got {_cut(sizes)}")
        if min(sizes) < 1 or max(sizes[:2]) > LARGEST_SIDE or sizes[2] > LONGEST_EMBEDDING:
            raise ContractError(
                f"contract sizes must be positive, crops up to {LARGEST_SIDE}x{LARGEST_SIDE} and "
                f"embeddings up to {LONGEST_EMBEDDING}, got {_cut(sizes)}"
            )
        texts = (self.template, self.input_name, self.output_name, self.source, self.licence)
        if not all(isinstance(text, str) for text in texts):
            raise ContractError(f"contract names and notes must be texts, got {_cut(texts)}")
        if any("\ud800" <= c <= "\udfff" for text in texts for c in text):
            raise ContractError(
                f"contract names and notes hold halves of characters: {_cut(texts)}"
            )
        if self.color not in ("RGB", "BGR"):
            raise ContractError(f"contract color must be RGB or BGR, got {_cut(self.color)}")
        if self.template not in TEMPLATES:
            raise ContractError(f"template must be one of {TEMPLATES}, got {_cut(self.template)}")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ContractError("contract mean and std need three values each")
        if not all(
            isinstance(v, Real) and not isinstance(v, bool) for v in (*self.mean, *self.std)
        ):
            raise ContractError("contract mean and std must be numbers")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ContractError(f"contract std must be positive and finite, got {_cut(self.std)}")

    @property
    def is_raw_pixels(self) -> bool:
        """Whether the network's input is pixels of 0..255, not normalized."""
        return self.mean == (0.0, 0.0, 0.0) and self.std == (1.0, 1.0, 1.0)

    def pixels(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Crops uint8 RGB (N,H,W,3) as uint8 (N,3,H,W) in the contract's channel order.

        Raises:
            ContractError: the crops have another dtype or size.
        """
        import numpy as np

        if faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[3] != 3:
            raise ContractError(
                f"faces must be uint8 RGB of shape (N,H,W,3), got {faces.dtype} {faces.shape}"
            )
        if faces.shape[1:3] != (self.height, self.width):
            raise ContractError(
                f"faces are {faces.shape[1]}x{faces.shape[2]}, the network takes "
                f"{self.height}x{self.width}; align them with: efq align PHOTOS -o FACES "
                f"--template {self.template}"
            )
        channels = faces if self.color == "RGB" else faces[..., ::-1]
        return np.ascontiguousarray(channels.transpose(0, 3, 1, 2))

    def normalize(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Crops uint8 RGB (N,H,W,3) as the network's input, float32 (N,3,H,W).

        Raises:
            ContractError: the crops have another dtype or size.
        """
        import numpy as np

        pixels = self.pixels(faces).astype(np.float32)
        if self.is_raw_pixels:
            return pixels
        mean = np.asarray(self.mean, np.float32).reshape(1, 3, 1, 1)
        std = np.asarray(self.std, np.float32).reshape(1, 3, 1, 1)
        return np.asarray((pixels - mean) / std, np.float32)

    def with_preprocess(self, name: str) -> FaceContract:
        """The same contract with the preprocessing of a model family.

        Args:
            name: one of ``PREPROCESS``.

        Raises:
            ContractError: it is another name.
        """
        if name not in PREPROCESS:
            raise ContractError(
                f"unknown preprocessing {name!r}: choose from {', '.join(PREPROCESS)}"
                f"{did_you_mean(name, PREPROCESS)}"
            )
        color, mean, std = PREPROCESS[name]
        return replace(self, color=color, mean=mean, std=std)

    def with_licence(self, licence: str) -> FaceContract:
        """The same contract with the teacher's licence note."""
        return replace(self, licence=licence)

    def describe(self) -> str:
        """One line for logs and reports."""
        return (
            f"{self.width}x{self.height} {self.color}, {self.normalization}, template "
            f"{self.template}, embedding {self.embedding_size}-d [{self.source}]"
        )

    @property
    def normalization(self) -> str:
        """The normalization as a formula."""
        if self.is_raw_pixels:
            return "pixels 0..255"
        return f"(x - {_short(self.mean)}) / {_short(self.std)}"

    def to_json(self) -> str:
        """The contract as JSON, for a model file's metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str = "metadata") -> FaceContract:
        """Read what :meth:`to_json` wrote; ``where`` names the file in errors.

        Raises:
            ContractError: the text is no contract.
        """
        try:
            raw = parse_json(text)
            if not isinstance(raw, Mapping):
                raise TypeError("it is no table of values")
            known = {f.name for f in fields(cls)}
            values: dict[str, Any] = {k: v for k, v in raw.items() if k in known}
            for name in ("mean", "std"):
                if not isinstance(values[name], list):
                    raise TypeError(f"{name} is no list")
                values[name] = tuple(
                    float(v) if isinstance(v, Real) and not isinstance(v, bool) else v
                    for v in values[name]
                )
            return cls(**values)
        except (ValueError, KeyError, TypeError, OverflowError, ContractError) as error:
            raise ContractError(
                f"{where}: the stored face contract cannot be read ({error})"
            ) from None

    @classmethod
    def read(cls, path: Path) -> FaceContract:
        """The contract in a JSON file.

        Raises:
            ContractError: it cannot be read.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ContractError(f"{path}: cannot be read as text ({error})") from None
        return cls.from_json(text, str(path))


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of crops from ``160``, or ``112x96`` (height first).

    Raises:
        ContractError: it has another form, or a side is not from 1 to 2048.
    """
    found = _SIZE.fullmatch(text.strip().lower())
    sides = [int(side) for side in found.groups() if side] if found else []
    if not sides or min(sides) < 1 or max(sides) > LARGEST_SIDE:
        raise ContractError(
            f"size {text[:40]!r}: write 160, or HEIGHTxWIDTH (112x96), up to {LARGEST_SIDE}"
        )
    return sides[0], sides[-1]


def _cut(value: object) -> str:
    """A value from a file, shortened for a message."""
    try:
        return repr(value)[:80]
    except ValueError:  # a whole number of thousands of digits
        return type(value).__name__


def _short(values: tuple[float, float, float]) -> str:
    texts = [f"{v:g}" for v in values]
    return texts[0] if len(set(texts)) == 1 else "[" + ", ".join(texts) + "]"
