"""Weights whose products no kernel's 16-bit sums can overflow: a limit for every two codes of a channel.

x86 processors without VNNI multiply unsigned activation codes by signed weights two at a time and add
the two products in 16 bits, where the sum stops at 32,767 (``vpmaddubsw``); WebAssembly's relaxed dot
product may do the same. A file is the same on every processor where no such sum can get there: for
any two weights ``v, w`` of one sign in an output channel, ``(|v| + |w|) * qmax <= 32,767``. Which two
weights meet depends on the kernel, so the rule holds for all of them.

A limit for the sum leaves more room than a limit for each weight: with ``qmax`` 255 a channel may hold
the codes 90 and 38, where 7 bits would end at 63.
"""

from __future__ import annotations

import torch
from torch import Tensor

from efquantface.quantize.scheme import INT16

_MARGIN = 2  # codes that rounding may add to a channel's largest, see ``reserved_bounds``

Bounds = tuple[Tensor, Tensor]


def pair_limit(largest: int, bits: int) -> int | None:
    """What two weights of one sign may sum up to; None where weights of ``bits`` bits never exceed it.

    Args:
        largest: the largest absolute value of the activation codes as the kernel reads them.
        bits: of the weights.
    """
    limit = INT16 // max(largest, 1)
    return None if 2 * (2 ** (bits - 1) - 1) <= limit else limit


def clamp_codes(codes: Tensor, limit: int, pairs: int | None) -> Tensor:
    """Rounded weights (O,...) as codes: each within +-``limit``, two of a sign within ``pairs``.

    The gradient passes where nothing is cut off.
    """
    codes = torch.clamp(codes, -limit, limit)
    return codes if pairs is None else torch.clamp(codes, *pair_bounds(codes.detach(), pairs))


@torch.no_grad()
def largest_pairs(codes: Tensor) -> Tensor:
    """The largest sum (O,) of two absolute values of one sign, of ``codes`` (O,...)."""
    flat = codes.flatten(1)
    sums = [sum(_largest_two(flat, sign)[:2], torch.zeros(())) for sign in (1, -1)]
    return torch.maximum(*sums).squeeze(1)


@torch.no_grad()
def pair_bounds(codes: Tensor, limit: int) -> Bounds:
    """(low, high) of the shape of ``codes`` (O,...): clamped to them, no two exceed ``limit``.

    The second largest of a sign keeps its value up to half the limit, the largest gets what is left;
    codes that keep the rule are not touched.
    """
    flat = codes.flatten(1)
    bounds = []
    for sign in (-1, 1):
        _, second, index = _largest_two(flat, sign)
        second = second.clamp(max=limit // 2)
        bound = torch.full_like(flat, limit // 2).scatter_(1, index, limit - second)
        bounds.append(bound.view_as(codes))
    return -bounds[0], bounds[1]


class PairClamp:
    """:func:`clamp_codes` of one weight at many scales: which two are largest is the same at all.

    Args:
        weight: (O,K).
        limit: of each code.
        pairs: of two codes of one sign.
    """

    def __init__(self, weight: Tensor, limit: int, pairs: int) -> None:
        self.limit, self.pairs = limit, pairs
        self.largest = [(sign, *_largest_two(weight, sign)) for sign in (1, -1)]

    def __call__(self, codes: Tensor, scale: Tensor) -> Tensor:
        """Codes (O,K) that ``weight / scale`` was rounded to, within the limits; ``scale`` is (O,1)."""
        half = self.pairs // 2
        clamped = codes.clamp(-half, half)
        for sign, first, second, index in self.largest:
            room = (self.pairs - torch.round(second / scale).clamp(max=half)).clamp(max=self.limit)
            largest = torch.minimum(torch.round(first / scale), room)
            # a row without a weight of this sign keeps what it has
            kept = clamped.gather(1, index)
            clamped.scatter_(1, index, torch.where(first > 0, sign * largest, kept))
        return clamped


@torch.no_grad()
def reserved_bounds(codes: Tensor, limit: int) -> Bounds:
    """(low, high) known before codes are rounded one after the other, each correcting the others.

    The largest of a sign gets room for its own value and a few codes more, all others what is left,
    never less than half the limit.
    """
    flat = codes.flatten(1).round()
    half = limit // 2
    bounds = []
    for sign in (-1, 1):
        first, second, index = _largest_two(flat, sign)
        room = torch.minimum((first + _MARGIN).clamp(min=half), (limit - second).clamp(min=half))
        others = (limit - room).clamp(max=half)
        bound = others.expand_as(flat).scatter(1, index, room)
        bounds.append(bound.view_as(codes))
    return -bounds[0], bounds[1]


def _largest_two(flat: Tensor, sign: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two largest values (O,1) of a sign in each row (O,K), at least 0, and where the first is."""
    sized = (sign * flat).clamp(min=0)
    first, index = sized.max(dim=1, keepdim=True)
    second = sized.scatter(1, index, 0.0).amax(dim=1, keepdim=True)
    return first, second, index
