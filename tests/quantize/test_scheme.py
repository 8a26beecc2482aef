"""Bits as people write them."""

from __future__ import annotations

import pytest

from efquantface.errors import RecipeError
from efquantface.quantize.scheme import Bits, Scheme


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("w8a8", (8, 8)),
        (" W6A4 ", (6, 4)),
        ("8", (8, 8)),
        ("int8", (8, 8)),
        ("8bit", (8, 8)),
        ("8-bit", (8, 8)),
        ("8 bits", (8, 8)),
        ("INT4", (4, 8)),
        ("4", (4, 8)),
    ],
)
def test_bits(text: str, bits: tuple[int, int]) -> None:
    assert Bits.parse(text) == Bits(*bits)


@pytest.mark.parametrize(
    "text", ["w8", "w1a8", "w9a8", "9", "1", "int16", "88", "w8a8x", "uint8", ""]
)
def test_bad_bits(text: str) -> None:
    with pytest.raises(RecipeError, match="w8a8"):
        Scheme.parse(text)
