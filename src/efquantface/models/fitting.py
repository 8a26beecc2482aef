"""Fits one layer after the other to what a teacher's layer gives: what rounding and pruning share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from efquantface.models.graph import module_of, name_of

_RIDGE = 1.0  # of the mean variance of the inputs; less follows the noise of few crops
_COLUMNS = 24576  # positions of all crops that a layer is fitted on
MOST_INPUTS = 4608  # of a channel; beyond (25,088 at IResNet's end) the system is too large


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


def columns(
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


def ridge(weight: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Weights nearest to ``weight`` (G,O,K) that bring ``W x + b`` near ``y``, and what they rest on.

    Args:
        weight: float64.
        x, y: (G,N,K) and (G,N,O), from :func:`columns`.

    Returns:
        the fitted weights, the inputs' regularized covariance (G,K,K), and the means of x and y.
    """
    count, inputs = x.shape[1:]
    mean_x, mean_y = x.mean(dim=1), y.mean(dim=1)
    x0, y0 = x - mean_x[:, None], y - mean_y[:, None]
    gram = (x0.transpose(1, 2) @ x0).double() / count
    strength = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-12)
    eye = strength[:, None, None] * torch.eye(inputs, dtype=gram.dtype)
    missing = (y0.transpose(1, 2) @ x0).double() / count - weight @ gram
    gram = gram + eye
    fitted = weight + torch.linalg.solve(gram, missing.transpose(1, 2)).transpose(1, 2)
    return fitted, gram, (mean_x, mean_y)
