"""What is quantized how: a frozen description, free of any module."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from efquantface.errors import RecipeError

INT16 = 32767  # where the sums of some kernels end
_PATTERN = re.compile(r"w([2-8])a([2-8])")
_WEIGHTS = re.compile(r"(?:int)?([2-8])(?:[ -]?bits?)?")  # activations keep 8 bits


@dataclass(frozen=True)
class Bits:
    """Bits of a layer's weights and of the codes it reads, 2 to 8 each."""

    weight: int = 8
    activation: int = 8

    @classmethod
    def parse(cls, text: str) -> Bits:
        """``w8a8`` and its relatives; ``8``, ``int8`` or ``8bit`` alone is of the weights.

        Raises:
            RecipeError: for anything else.
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
    """Bits of every layer, and the kind of activation codes.

    Weights are symmetric per output channel, activations per tensor, the network's input always 8
    bits (pixels are 8 bits), biases 32 bits, the embedding float. The activation bits are those of
    the codes that convolutions and linear layers read; what only additions, averages and the parts
    of a PReLU read keeps 8 bits, as does the scale per channel of a PReLU or BatchNorm.

    Attributes:
        bits: of layers that ``layers`` does not name.
        layers: (shell pattern of layer names, bits); the last pattern that matches decides.
        wide_ends: the first and the last layer keep 8 bits, whatever ``bits`` says.
        symmetric: activation codes are signed with zero point 0 (TensorRT, ncnn, many NPUs) instead of
            unsigned with a zero point.
        full_range: weights of 8 bits use all codes, also where the 16-bit sums of x86 processors
            without VNNI can overflow (:mod:`pairs`).
    """

    bits: Bits = field(default_factory=Bits)
    layers: tuple[tuple[str, Bits], ...] = ()
    wide_ends: bool = False
    symmetric: bool = False
    full_range: bool = False

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """The same bits for all layers."""
        return cls(Bits.parse(text))

    def of(self, layer: str, end: bool = False) -> Bits:
        """Bits of one layer, by name; ``end`` marks the first and the last."""
        found = Bits() if end and self.wide_ends else self.bits
        for pattern, bits in self.layers:
            if fnmatchcase(layer, pattern):
                found = bits
        return found

    def check_names(self, names: list[str]) -> None:
        """Every pattern must name a layer.

        Raises:
            RecipeError: a pattern matches none of ``names``.
        """
        for pattern, _ in self.layers:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise RecipeError(
                    f"layers: {pattern!r} names none of the {len(names)} layers, which are "
                    f"{', '.join(names)}"
                )
