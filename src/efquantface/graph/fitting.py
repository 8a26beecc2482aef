"""Fits one layer after the other to what a teacher's layer gives: what rounding and pruning share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from efquantface.graph.graph import module_of, name_of

_COLUMNS = 24576  # positions of all crops that a layer is fitted on
_MOST_INPUTS = 4608  # of a channel; beyond (25,088 at IResNet's end) the system is too large


class Stepper:
    """Runs a graph node by node, as far as it is asked, dropping values that nobody will read."""

    def __init__(self, gm: fx.GraphModule, pixels: Tensor) -> None:
        self.gm, self.values = gm, dict[fx.Node, Any]()
        self.left = {node: len(node.users) for node in gm.graph.nodes}
        self.nodes = iter(gm.graph.nodes)
        self.pixels = pixels

    def step(self) -> tuple[fx.Node, nn.Module | None] | None:
        """The next node with its inputs at hand and its output not computed yet."""
        node = next(self.nodes, None)
        return None if node is None else (node, module_of(self.gm, node))

    def inputs(self, node: fx.Node) -> list[Tensor]:
        return [self.values[a] for a in node.args if isinstance(a, fx.Node)]

    def finish(self, node: fx.Node, module: nn.Module | None) -> None:
        if node.op == "placeholder":
            self.values[node] = self.pixels
        elif module is not None:
            self.values[node] = module(*self.inputs(node))
        for source in node.all_input_nodes:
            self.left[source] -= 1
            if not self.left[source]:
                self.values.pop(source, None)

    def until(self, name: str) -> Tensor:
        """The value of the node of this name."""
        while (at := self.step()) is not None:
            self.finish(*at)
            if name_of(at[0]) == name:
                found: Tensor = self.values[at[0]]
                return found
        raise KeyError(name)


def _columns(
    layer: Any, x: Tensor, wanted: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What the layer reads (G,N,K) and should give (G,N,O/G), at random positions."""
    if not hasattr(layer, "kernel_size"):
        rows, results = x.flatten(0, -2), wanted.flatten(0, -2)
        if len(rows) > _COLUMNS:  # a map's places are rows, too
            chosen = torch.randint(len(rows), (_COLUMNS,), generator=generator)
            rows, results = rows[chosen], results[chosen]
        return rows[None], results[None]
    batch, _, height, width = wanted.shape
    groups, total = layer.groups, batch * height * width
    each = max(_COLUMNS // batch, 1)
    inputs, outputs = [], []
    for image in range(batch):  # unfolded image by image, to bound memory
        unfolded = F.unfold(
            x[image : image + 1], layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )[0]
        pick: Any = slice(None)
        if total > _COLUMNS:
            pick = torch.randint(height * width, (each,), generator=generator)
        inputs.append(unfolded[:, pick])
        outputs.append(wanted[image].flatten(1)[:, pick])
    columns = torch.cat(inputs, dim=1).reshape(groups, -1, sum(i.shape[1] for i in inputs))
    targets = torch.cat(outputs, dim=1).reshape(groups, -1, columns.shape[2])
    return columns.transpose(1, 2), targets.transpose(1, 2)


@dataclass(frozen=True)
class Fit:
    """A layer fitted to wanted outputs.

    Attributes:
        weight: (G,O,K) float64.
        gram: the inputs' covariance (G,K,K).
        ridge: (G,), what regularization adds to its diagonal.
        mean_x, mean_y: (G,K) and (G,O) of inputs and wanted outputs.
    """

    weight: Tensor
    gram: Tensor
    ridge: Tensor
    mean_x: Tensor
    mean_y: Tensor

    @property
    def regularized(self) -> Tensor:
        """The covariance with the ridge, (G,K,K)."""
        eye = torch.eye(self.gram.shape[-1], dtype=self.gram.dtype)
        return self.gram + self.ridge[:, None, None] * eye

    def bias(self, weight: Tensor) -> Tensor:
        """The bias (G O,) with which ``weight`` (G,O,K) gives the wanted mean."""
        return (self.mean_y - (weight.float() @ self.mean_x[..., None])[..., 0]).reshape(-1)


def fit(
    layer: Any, inputs: Tensor, wanted: Tensor, generator: torch.Generator, ridge: float = 1.0
) -> Fit | None:
    """Weights nearest to the layer's that bring ``W x + b`` near ``wanted`` (ridge regression).

    None where a channel has more inputs than can be solved for.

    Args:
        layer: convolution or linear layer, float or quantized.
        inputs: what it reads.
        wanted: what it should give.
        generator: of the positions that are looked at.
        ridge: of the mean variance of the inputs; less follows the noise of few crops.
    """
    x, y = _columns(layer, inputs, wanted, generator)
    groups, count, width = x.shape
    if width > _MOST_INPUTS:
        return None
    weight = layer.weight.reshape(groups, -1, width).double()
    mean_x, mean_y = x.mean(dim=1), y.mean(dim=1)
    x0, y0 = x - mean_x[:, None], y - mean_y[:, None]
    gram = (x0.transpose(1, 2) @ x0).double() / count
    strength = ridge * gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-12)
    missing = (y0.transpose(1, 2) @ x0).double() / count - weight @ gram
    found = Fit(weight, gram, strength, mean_x, mean_y)
    correction = torch.linalg.solve(found.regularized, missing.transpose(1, 2)).transpose(1, 2)
    return replace(found, weight=weight + correction)
