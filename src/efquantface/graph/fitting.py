"""Fits a student's layers, one after the other, to the teacher's. Rounding and pruning use it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from efquantface.graph.graph import module_of, name_of

_COLUMNS = 24576  # positions, over all crops, on which a layer is fitted
_MOST_INPUTS = 4608  # of an output channel; larger systems (25,088 at IResNet's end) cost too much


class Stepper:
    """Runs a graph node by node, on demand. Values without further readers are dropped."""

    def __init__(self, gm: fx.GraphModule, pixels: Tensor) -> None:
        self.gm, self.values = gm, dict[fx.Node, Any]()
        self.left = {node: len(node.users) for node in gm.graph.nodes}
        self.nodes = iter(gm.graph.nodes)
        self.pixels = pixels

    def step(self) -> tuple[fx.Node, nn.Module | None] | None:
        """The next node and its module; inputs are computed, the output is not. None at the end."""
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
        """Run the graph up to the node ``name``, and give its value."""
        while (at := self.step()) is not None:
            self.finish(*at)
            if name_of(at[0]) == name:
                found: Tensor = self.values[at[0]]
                return found
        raise KeyError(name)


def _columns(
    layer: Any, x: Tensor, wanted: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs (G,N,K) of the layer and wanted outputs (G,N,O/G) at random positions."""
    if not hasattr(layer, "kernel_size"):
        rows, results = x.flatten(0, -2), wanted.flatten(0, -2)
        if len(rows) > _COLUMNS:  # places of a map are rows, too
            chosen = torch.randint(len(rows), (_COLUMNS,), generator=generator)
            rows, results = rows[chosen], results[chosen]
        return rows[None], results[None]
    batch, _, height, width = wanted.shape
    groups, total = layer.groups, batch * height * width
    each = max(_COLUMNS // batch, 1)
    inputs, outputs = [], []
    for image in range(batch):  # image by image, to bound memory
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
        gram: covariance (G,K,K) of the inputs.
        ridge: (G,), added to the diagonal of ``gram``.
        mean_x, mean_y: means (G,K) of the inputs and (G,O) of the wanted outputs.
    """

    weight: Tensor
    gram: Tensor
    ridge: Tensor
    mean_x: Tensor
    mean_y: Tensor

    @property
    def regularized(self) -> Tensor:
        """The covariance (G,K,K) with the ridge added."""
        eye = torch.eye(self.gram.shape[-1], dtype=self.gram.dtype)
        return self.gram + self.ridge[:, None, None] * eye

    def bias(self, weight: Tensor) -> Tensor:
        """The bias (G*O,) with which ``weight`` (G,O,K) gives the wanted mean."""
        return (self.mean_y - (weight.float() @ self.mean_x[..., None])[..., 0]).reshape(-1)


def fit(
    layer: Any, inputs: Tensor, wanted: Tensor, generator: torch.Generator, ridge: float = 1.0
) -> Fit | None:
    """Weights that bring ``W x + b`` near ``wanted`` and stay near the layer's own (ridge regression).

    None where an output channel has too many inputs.

    Args:
        layer: convolution or linear layer, float or quantized.
        inputs: of the layer.
        wanted: outputs that the layer should give.
        generator: draws the positions.
        ridge: weight of the layer's own weights, in mean variances of the inputs. A small ridge follows
            the noise of few crops.
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
