"""Weights that cannot overflow 16-bit sums in any kernel: a limit for each two codes of a channel.

x86 processors without VNNI multiply unsigned activation codes by signed weights, two at a time. They add
both products in 16 bits, where the sum saturates at 32,767 (``vpmaddubsw``). WebAssembly's relaxed dot
product may do the same. A file is portable where no such sum can saturate: for any two weights ``v, w``
of one sign in an output channel, ``(|v| + |w|) * qmax <= 32,767``. Which two weights meet depends on the
kernel, so the rule is for all pairs.

A limit for the sum leaves more room than a limit for each weight. With ``qmax`` 255 a channel may hold
the codes 90 and 38; 7 bits would end at 63.
"""

from __future__ import annotations

import torch
from torch import Tensor

from efquantface.quantize.scheme import INT16

_MARGIN = 2  # codes that rounding may add to a channel's largest (``reserved_bounds``)

Bounds = tuple[Tensor, Tensor]


def pair_limit(largest: int, bits: int) -> int | None:
    """The largest sum of two weights of one sign; None where ``bits`` bits never exceed it.

    Args:
        largest: the largest absolute value of the activation codes.
        bits: of the weights.
    """
    limit = INT16 // max(largest, 1)
    return None if 2 * (2 ** (bits - 1) - 1) <= limit else limit


def clamp_codes(codes: Tensor, limit: int, pairs: int | None) -> Tensor:
    """Rounded weights (O,...) as codes: each within +-``limit``, any two of one sign within ``pairs``.

    The gradient passes where a code is not clipped.
    """
    codes = torch.clamp(codes, -limit, limit)
    return codes if pairs is None else torch.clamp(codes, *pair_bounds(codes.detach(), pairs))


@torch.no_grad()
def largest_pairs(codes: Tensor) -> Tensor:
    """The largest sum (O,) of the absolute values of two ``codes`` (O,...) of one sign."""
    flat = codes.flatten(1)
    sums = [sum(_largest_two(flat, sign)[:2], torch.zeros(())) for sign in (1, -1)]
    return torch.maximum(*sums).squeeze(1)


@torch.no_grad()
def pair_bounds(codes: Tensor, limit: int) -> Bounds:
    """(low, high), each of the shape of ``codes`` (O,...): clamped to them, no two exceed ``limit``.

    The second largest of a sign keeps its value up to half the limit. The largest gets what is left.
    Codes that keep the rule are not changed.
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
    """:func:`clamp_codes` of one weight at many scales. The two largest are the same at all scales.

    Args:
        weight: (O,K).
        limit: of each code's absolute value.
        pairs: of the sum of two codes of one sign.
    """

    def __init__(self, weight: Tensor, limit: int, pairs: int) -> None:
        self.limit, self.pairs = limit, pairs
        self.largest = [(sign, *_largest_two(weight, sign)) for sign in (1, -1)]

    def __call__(self, codes: Tensor, scale: Tensor) -> Tensor:
        """``codes`` (O,K), ``weight / scale`` rounded, clamped to the limits; ``scale`` is (O,1)."""
        half = self.pairs // 2
        clamped = codes.clamp(-half, half)
        for sign, first, second, index in self.largest:
            room = (self.pairs - torch.round(second / scale).clamp(max=half)).clamp(max=self.limit)
            largest = torch.minimum(torch.round(first / scale), room)
            # a row without weights of this sign is not changed
            kept = clamped.gather(1, index)
            clamped.scatter_(1, index, torch.where(first > 0, sign * largest, kept))
        return clamped


@torch.no_grad()
def reserved_bounds(codes: Tensor, limit: int) -> Bounds:
    """(low, high) for codes that are rounded one after the other, each correcting the rest.

    The largest of a sign gets room for its own value and a few codes more. All others get what is left,
    at least half the limit.
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
    """The two largest values (O,1) of a sign in each row of (O,K), at least 0; index of the first."""
    sized = (sign * flat).clamp(min=0)
    first, index = sized.max(dim=1, keepdim=True)
    second = sized.scatter(1, index, 0.0).amax(dim=1, keepdim=True)
    return first, second, index
