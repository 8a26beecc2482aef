"""A file's codes compared with the student's, layer by layer: each layer reads the file's own integers.

A code is right where exact arithmetic rounds to it. Runtimes multiply and sum in float32, each in its
own order. So a value on the edge between two codes may round to either: a code may differ by one there,
and nowhere else. Every layer is judged by itself, so a difference does not grow through later layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from efquantface.export.emulate import Emulator
from efquantface.graph.graph import name_of
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer

Codes = dict[str, npt.NDArray[Any]]

EDGE = 1e-4  # codes; the largest seen is 1e-5, in symmetric students, which sessions run in float
_TIMES = 4.0  # another order of sums may lie so many times farther than float64 does
SHARE = 0.05  # of codes; the largest seen is 0.023, behind a GELU with values near zero
_AT_ONCE = 8  # crops; values are kept in float64


@dataclass(frozen=True)
class LayerParity:
    """One layer's outcome on the file's integers.

    Attributes:
        name: of its quantizer.
        max_codes: largest difference in codes.
        differing: share of codes that differ, 0 to 1.
        beyond: how far, in codes, a value lies at most outside of what rounds to the file's code.
        rounding: largest difference between float32 and float64, in codes; 0 in integers.
    """

    name: str
    max_codes: int
    differing: float
    beyond: float = 0.0
    rounding: float = 0.0

    @property
    def problem(self) -> str:
        """What is wrong with the layer; empty where nothing is."""
        if self.max_codes > 1:
            return f"layer {self.name} differs by {self.max_codes} codes"
        if not self.beyond <= EDGE + _TIMES * self.rounding:
            return (
                f"layer {self.name} differs in {self.differing:.2g} of its codes; values lie up to "
                f"{self.beyond:.2g} codes beyond the edges of these codes"
            )
        if not self.differing <= SHARE:
            return f"layer {self.name} differs by a code in {self.differing:.2g} of its codes"
        return ""


def walk(
    student: FaceModel, pixels: Tensor, codes: Codes, *, islands: bool
) -> tuple[tuple[LayerParity, ...], npt.NDArray[np.float32]]:
    """Compare each quantizer's codes with those that the student computes from the file's earlier codes.

    Args:
        student: quantized.
        pixels: (N,3,H,W), 0 to 255.
        codes: of the file, by quantizer name.
        islands: the student has islands, whose rounding is measured.

    Returns:
        One entry per quantizer, and the embeddings (N,D) float32 that follow from the file's last codes.
    """
    found: dict[str, list[tuple[int, LayerParity]]] = {}
    rows = []
    for start in range(0, len(pixels), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        own = {name: values[part] for name, values in codes.items()}
        walker = Walker(student.graph, own)
        rows.append(walker.rows(pixels[part]))
        if islands:
            wide = Walker(student.graph, own, wide=True)
            wide.rows(pixels[part])
        for layer in walker.layers:
            rounding = 0.0
            if islands and layer.name in walker.floats:
                apart = walker.floats[layer.name] - wide.floats[layer.name]
                rounding = float(apart.abs().max())
            layer = LayerParity(
                layer.name, layer.max_codes, layer.differing, layer.beyond, rounding
            )
            found.setdefault(layer.name, []).append((len(pixels[part]), layer))
    return tuple(_joined(parts) for parts in found.values()), np.concatenate(rows)


def _joined(parts: list[tuple[int, LayerParity]]) -> LayerParity:
    """One layer's outcome, joined from batches (number of crops, outcome)."""
    counts, layers = zip(*parts, strict=True)
    return LayerParity(
        layers[0].name,
        max(layer.max_codes for layer in layers),
        float(np.average([layer.differing for layer in layers], weights=counts)),
        max(layer.beyond for layer in layers),
        max(layer.rounding for layer in layers),
    )


class Walker(Emulator):
    """Compares each quantizer's codes with the file's, and goes on with the file's.

    The input's codes are the file's, too, where they are given.

    Attributes:
        layers: one entry per quantizer.
        floats: the values that were rounded to codes, limited to qmin and qmax, where they were computed
            in float; by quantizer name.
    """

    def __init__(self, gm: fx.GraphModule, codes: Codes, wide: bool = False) -> None:
        super().__init__(gm, wide=wide)
        self.codes, self.layers = codes, list[LayerParity]()
        self.floats: dict[str, Tensor] = {}

    def rows(self, pixels: Tensor) -> npt.NDArray[np.float32]:
        """Embeddings (N,D) float32 of pixels (N,3,H,W)."""
        with torch.no_grad():
            result: Tensor = self.run(pixels.cpu().float())
        return np.asarray(result.float().numpy(), np.float32)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        theirs = self.codes.get(name_of(n))
        if theirs is None or not self.is_input(n):
            return result
        return replace(result, codes=torch.from_numpy(theirs).double())

    def settle(
        self,
        node: fx.Node,
        module: ActivationQuantizer,
        unrounded: Tensor,
        codes: Tensor,
        in_float: bool,
    ) -> Tensor:
        name = name_of(node)
        theirs = torch.from_numpy(self.codes[name]).double()
        apart = (codes - theirs).abs()
        value = unrounded.clamp(module.qmin, module.qmax)
        if in_float:
            self.floats[name] = value
        beyond = max(float((value - theirs).abs().max()) - 0.5, 0.0)
        differing = float((apart > 0).double().mean())
        self.layers.append(LayerParity(name, int(apart.max()), differing, beyond))
        return theirs
