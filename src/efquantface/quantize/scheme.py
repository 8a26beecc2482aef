"""The scheme: bits and kinds of codes, as plain data."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from efquantface.errors import RecipeError

INT16 = 32767  # 16-bit sums saturate here
_PATTERN = re.compile(r"w([2-8])a([2-8])")
_WEIGHTS = re.compile(r"(?:int)?([2-8])(?:[ -]?bits?)?")  # weights only; activations keep 8 bits


@dataclass(frozen=True)
class Bits:
    """Bits of a layer's weights and of the codes that it reads, 2 to 8 each."""

    weight: int = 8
    activation: int = 8

    @classmethod
    def parse(cls, text: str) -> Bits:
        """Read ``w8a8`` and the like. ``8``, ``int8`` or ``8bit`` alone means the weights.

        Raises:
            RecipeError: the text is something else.
        """
        given = text.strip().lower()
        if match := _PATTERN.fullmatch(given):
            return cls(int(match[1]), int(match[2]))
        if match := _WEIGHTS.fullmatch(given):
            return cls(int(match[1]))
        raise RecipeError(
            f"bits {text!r}: write w8a8, with 2 to 8 bits for each; 4 alone means w4a8"
        )

    def __str__(self) -> str:
        return f"w{self.weight}a{self.activation}"


@dataclass(frozen=True)
class Scheme:
    """Bits of each layer, and the kind of activation codes.

    Weights are symmetric with one scale per output channel. Activations have one scale per tensor. The
    network's input has 8 bits, as pixels do. Biases have 32 bits; the embedding is float.

    Activation bits are those of the codes that convolutions and linear layers read. Codes that only
    additions, averages and the parts of a PReLU read keep 8 bits. So does the per-channel scale of a
    PReLU or BatchNorm.

    Attributes:
        bits: of layers that ``layers`` does not name.
        layers: (shell pattern of layer names, bits); the last matching pattern decides.
        wide_ends: the first and the last layer keep 8 bits, unless ``layers`` names them.
        wide_depthwise: weights of the first convolution and of depthwise ones keep 8 bits, unless
            ``layers`` names them. They are few, and rounding them costs most.
        symmetric: activation codes are signed with zero point 0 (for TensorRT, ncnn, many NPUs).
            Otherwise they are unsigned with a zero point.
        full_range: weights of 8 bits use all codes. Then 16-bit sums can overflow on x86 processors
            without VNNI (:mod:`pairs`).
    """

    bits: Bits = field(default_factory=Bits)
    layers: tuple[tuple[str, Bits], ...] = ()
    wide_ends: bool = False
    wide_depthwise: bool = False
    symmetric: bool = False
    full_range: bool = False

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """A scheme with the same bits for all layers."""
        return cls(Bits.parse(text))

    def of(self, layer: str, end: bool = False, thin: bool = False) -> Bits:
        """Bits of the layer called ``layer``.

        Args:
            layer: its name.
            end: it is the first or the last one.
            thin: it is the first convolution, or a depthwise one.
        """
        found = self.bits
        if thin and self.wide_depthwise:
            found = Bits(8, found.activation)
        if end and self.wide_ends:
            found = Bits()
        for pattern, bits in self.layers:
            if fnmatchcase(layer, pattern):
                found = bits
        return found

    def check_names(self, names: list[str]) -> None:
        """Check that each pattern names a layer.

        Raises:
            RecipeError: a pattern matches none of ``names``.
        """
        for pattern, _ in self.layers:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise RecipeError(
                    f"layers: {pattern!r} names none of the {len(names)} layers, which are "
                    f"{', '.join(names)}"
                )
