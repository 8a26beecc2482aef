"""Scales moved by millionths, so that XNNPACK rounds sums as the student does.

XNNPACK multiplies codes by whole numbers of 21 bits. So a few of the 65,536 pairs of codes round to the
other side of an edge. With a sum behind every PReLU, these few would cost more than all other rounding.

A scale between integer layers and sums is free to move: the layers in front of it and behind it get
weight scales that give the same codes. Of the scales with the fewest differing pairs, the nearest is
taken.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from efquantface.export.emulate import affine_codes, sums_of_codes
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, module_of, name_of
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d
from efquantface.quantize.narrow import Quantizer

_STEP, _MOST = 4, 6  # float32's smallest steps at once, and how often to each side
_BITS = 20  # of XNNPACK's larger factor, behind its first bit
_NEAR = 4  # float32 neighbours that are tried as a compensating scale
_CRITICAL = 3e-3  # codes from an edge; scales move values by less

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]
Scales = dict[str, np.float32]


@dataclass(frozen=True)
class Stored:
    """A tensor's codes as unsigned codes: scale, zero point, smallest and largest.

    ``offset`` was added to signed codes.
    """

    scale: np.float32
    zero_point: int
    low: int = 0
    high: int = 255
    offset: int = 0


def free_scales(gm: fx.GraphModule) -> Scales:
    """Moved scales of quantizers around sums, by name. Other quantizers keep the student's scales."""
    found: Scales = {}
    settled: set[str] = set()
    for node, module in module_nodes(gm):
        readers = [module_of(gm, user) for user in node.users]
        if not isinstance(module, ops.Add) or len(readers) != 1:
            continue
        made = next(iter(node.users))
        nodes = [_source(gm, n) for n in node.args if isinstance(n, fx.Node)]
        around = [n for n in (*nodes, made) if n is not None]
        if len(around) < 3 or not isinstance(readers[0], ActivationQuantizer):
            continue
        names = [name_of(n) for n in around]
        stored = [_stored(gm, n, found) for n in around]
        own = [_stored(gm, n, {}) for n in around]
        pairs = _critical(own[0], own[1], own[2], _occurring(gm, *around[:2]))
        free = [
            name not in settled and _is_free(gm, n) for name, n in zip(names, around, strict=True)
        ]
        free[0] &= names[0] != names[1]
        free[1] &= names[0] != names[1]
        found |= {
            name: scale
            for name, scale, old in zip(names, _best(stored, free, pairs), stored, strict=True)
            if scale != old.scale
        }
        settled |= set(names)
    return found


def compensated(scales: Floats, old: tuple[float, float], new: tuple[float, float]) -> Floats:
    """Weight scales (O,) with which a layer gives the same codes.

    Args:
        scales: the student's weight scales (O,).
        old, new: scales of the codes that the layer reads and gives: the student's, the file's.
    """
    (source, made), (source_now, made_now) = (np.asarray(pair, np.float32) for pair in (old, new))
    wanted = (source * scales).astype(np.float32) / made
    ratio = float(source) * float(made_now) / float(made) / float(source_now)
    nearest = (scales.astype(np.float64) * ratio).astype(np.float32)
    tried = _neighbours(nearest, np.arange(-_NEAR, _NEAR + 1))
    misses = np.abs((source_now * tried).astype(np.float32) / made_now - wanted)
    best: Floats = tried[misses.argmin(axis=0), np.arange(len(scales))]
    return best


def xnnpack_sums(first: Stored, second: Stored, made: Stored, a: Codes, b: Codes) -> Codes:
    """XNNPACK's codes of the sums of codes ``a`` and ``b``, limited to the codes of ``made``."""
    ratios = first.scale / made.scale, second.scale / made.scale
    shift = _BITS - int(np.floor(np.log2(max(ratios))))
    factors = [int(np.rint(float(ratio) * 2.0**shift)) for ratio in ratios]
    total = (a - first.zero_point) * factors[0] + (b - second.zero_point) * factors[1]
    result: Codes = ((total + (1 << (shift - 1))) >> shift) + made.zero_point
    return result.clip(made.low, made.high)


def _best(
    stored: list[Stored], free: list[bool], pairs: tuple[Codes, Codes, Codes]
) -> list[np.float32]:
    """Scales of both operands and of the sum, with the fewest differing pairs; the nearest of these."""
    a, b, wanted = pairs
    steps = [_neighbours(x.scale.reshape(1), _STEP * _ORDER)[:, 0] if f else x.scale.reshape(1)
             for x, f in zip(stored, free, strict=True)]  # fmt: skip
    places = itertools.product(*(range(len(s)) for s in steps))
    fewest, best = len(a) + 1, [x.scale for x in stored]
    for place in sorted(places, key=sum):
        scales = [s[i] for s, i in zip(steps, place, strict=True)]
        tried = [replace(x, scale=s) for x, s in zip(stored, scales, strict=True)]
        made = xnnpack_sums(tried[0], tried[1], tried[2], a, b)
        differing = int((made != wanted).sum())
        if differing < fewest:
            fewest, best = differing, scales
        if not differing:
            break
    return best


_ORDER = np.asarray(sorted(range(-_MOST, _MOST + 1), key=abs))


def _critical(
    first: Stored, second: Stored, made: Stored, occurring: npt.NDArray[np.bool_]
) -> tuple[Codes, Codes, Codes]:
    """Pairs of codes whose sum lies near an edge between two codes, and the student's codes."""
    a, b = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    ratios = [float(x.scale) / float(made.scale) for x in (first, second)]
    value = (a - first.zero_point) * ratios[0] + (b - second.zero_point) * ratios[1]
    near = occurring & (np.abs(value - np.floor(value) - 0.5) < _CRITICAL)
    for codes, x in ((a, first), (b, second)):
        near &= (codes >= x.low) & (codes <= x.high)
    signed = [(x.scale, x.zero_point - x.offset) for x in (first, second, made)]
    student = sums_of_codes(signed[0], signed[1], signed[2], -made.offset).numpy() + made.offset
    a, b = a[near], b[near]
    return a, b, student[a, b].astype(np.int64).clip(made.low, made.high)


def _occurring(gm: fx.GraphModule, first: fx.Node, second: fx.Node) -> npt.NDArray[np.bool_]:
    """Which pairs of codes (256,256) occur. In a PReLU a slope computes one code from the other."""
    found = np.ones((256, 256), bool)
    for x, product in ((first, second), (second, first)):
        affine, quantizer = product.args[0], module_of(gm, product)
        layer = module_of(gm, affine) if isinstance(affine, fx.Node) else None
        if not isinstance(layer, QuantAffine) or not isinstance(quantizer, ActivationQuantizer):
            continue
        assert isinstance(affine, fx.Node)
        source = affine.args[0]
        assert isinstance(source, fx.Node)
        if _source(gm, source) is not x:
            continue
        stored, offset = _stored(gm, x, {}), 128 if quantizer.symmetric else 0
        codes = torch.arange(256, dtype=torch.float64)
        module = module_of(gm, source)
        if isinstance(module, ops.Clamp):
            codes = codes.clamp(
                None if module.low is None else stored.zero_point,
                None if module.high is None else stored.zero_point,
            )
        elif source is not x:
            continue
        read = (stored.scale, stored.zero_point)
        made = affine_codes(layer, quantizer, codes, read)[0].long().numpy() + offset
        found = np.zeros((256, 256), bool)
        found[np.broadcast_to(np.arange(256), made.shape), made] = True
        return found if x is first else found.T
    return found


def _neighbours(values: Floats, steps: npt.NDArray[np.int64]) -> Floats:
    """Values ``steps`` of float32's smallest steps away, (steps, values)."""
    bits = np.ascontiguousarray(values, np.float32).view(np.int32)
    return (bits + steps.astype(np.int32)[:, None]).astype(np.int32).view(np.float32)


def _source(gm: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The quantizer whose codes a node gives or hands on; None where there is none."""
    while not isinstance(module_of(gm, node), Quantizer):
        parent = node.args[0] if node.args else None
        if not ops.moves_codes(module_of(gm, node)) or not isinstance(parent, fx.Node):
            return None
        node = parent
    return node


def _is_free(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Whether only integer layers and sums give and read these codes, so that their scale may move."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    made_by = isinstance(module_of(gm, source), QuantConv2d | QuantAffine | ops.Add)
    return (
        isinstance(module_of(gm, node), ActivationQuantizer) and made_by and _read_freely(gm, node)
    )


def _read_freely(gm: fx.GraphModule, node: fx.Node) -> bool:
    for user in node.users:
        module = module_of(gm, user)
        if ops.moves_codes(module):
            if not _read_freely(gm, user):
                return False
        elif not isinstance(module, QuantConv2d | QuantAffine | ops.Add):
            return False
    return True


def _stored(gm: fx.GraphModule, node: fx.Node, found: Scales) -> Stored:
    m = module_of(gm, node)
    assert isinstance(m, Quantizer)
    scale, zero_point = m.qparams()
    offset = 128 if m.symmetric else 0
    low, high = 0, 255  # of pixels
    if isinstance(m, ActivationQuantizer):
        low, high = m.qmin + offset, m.qmax + offset
    now = found.get(name_of(node), np.float32(scale))
    return Stored(now, zero_point + offset, low, high, offset)
