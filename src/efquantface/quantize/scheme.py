"""What is quantized how: a frozen description, free of any module."""

from __future__ import annotations

import re
from dataclasses import dataclass

from efquantface.errors import RecipeError

_PATTERN = re.compile(r"w([2-8])a([2-8])")


@dataclass(frozen=True)
class Scheme:
    """Bits of weights and activations.

    Weights are symmetric per output channel, activations affine per tensor, the network's input
    always 8 bits (pixels are 8 bits), biases 32 bits, the embedding float.
    """

    weight_bits: int = 8
    activation_bits: int = 8

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """``w8a8`` and its relatives, 2 to 8 bits each.

        Raises:
            RecipeError: for anything else.
        """
        match = _PATTERN.fullmatch(text.strip().lower())
        if match is None:
            raise RecipeError(f"bits {text!r}: write w8a8, with 2 to 8 bits for each")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"w{self.weight_bits}a{self.activation_bits}"
