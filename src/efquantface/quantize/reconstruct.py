"""Rounding without training: each layer gives back what the layers before it and its own grid lost.

Layers are visited in order, student and teacher side by side on a few hundred crops. Where the
student's layer reads ``x'`` and the teacher's gives ``y = W x + b``, first the real-valued weights
and bias that come closest to ``y`` from ``x'`` are found (ridge regression towards ``W``); it takes
in the mean error that bias correction removes (Nagel et al. 2019, section 4.2). Then the weights
are rounded one input after the other, what each rounding costs being made up for by the inputs not
rounded yet (Frantar et al. 2023, GPTQ, section 3; the objective is AdaRound's, in closed form).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from efquantface.models.graph import module_of, name_of
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.placement import quantizer_before
from efquantface.quantize.ranges import search_weight_steps

_RIDGE = 1.0  # of the mean variance of the inputs; less follows the noise of few crops
_COLUMNS = 24576  # positions of all crops that a layer is fitted on
_MOST_INPUTS = 4608  # of a channel; beyond (25,088 at IResNet's end) the system is too large


class _Stepper:
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


@torch.no_grad()
def reconstruct(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    pixels: Tensor,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Fit and round the student's layers in place; its ranges must be set.

    Args:
        student: quantized graph.
        teacher: the float graph that it was quantized from, its channels scaled alike.
        pixels: (N,3,H,W); a hundred crops are enough.
    """
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = _Stepper(student, pixels.float()), _Stepper(teacher, pixels.float())
    layers = [m for m in student.modules() if isinstance(m, QuantConv2d | QuantLinear)]
    done = 0
    while (at := ours.step()) is not None:
        node, module = at
        if isinstance(module, QuantConv2d | QuantLinear):
            wanted = theirs.until(name_of(node))
            _fit(module, ours.inputs(node)[0], wanted, generator)
            module.refresh_bias(quantizer_before(student, node).qparams()[0])
            done += 1
            progress(done, len(layers))
        ours.finish(node, module)


def _fit(
    layer: QuantConv2d | QuantLinear, x: Tensor, wanted: Tensor, generator: torch.Generator
) -> None:
    columns, targets = _columns(layer, x, wanted, generator)
    groups, count, inputs = columns.shape
    if inputs > _MOST_INPUTS:
        return
    weight = layer.weight.reshape(groups, -1, inputs).double()
    mean_x, mean_y = columns.mean(dim=1), targets.mean(dim=1)
    x0, y0 = columns - mean_x[:, None], targets - mean_y[:, None]
    gram = (x0.transpose(1, 2) @ x0).double() / count
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-12)
    gram = gram + ridge[:, None, None] * torch.eye(inputs, dtype=gram.dtype)
    missing = (y0.transpose(1, 2) @ x0).double() / count - weight @ (
        gram - _diagonal(ridge, inputs)
    )
    fitted = weight + torch.linalg.solve(gram, missing.transpose(1, 2)).transpose(1, 2)
    steps = search_weight_steps(fitted.reshape(-1, inputs).float(), layer.limit)
    latent, codes = _round(fitted, gram, steps.double().reshape(groups, -1), layer.limit)
    rounded = codes * steps.double().reshape(groups, -1, 1)
    bias = mean_y - (rounded.float() @ mean_x[..., None])[..., 0]
    # training goes on from what was rounded, not from the middle of a code's interval, which all
    # weights would first have to leave
    layer.set_weight(latent.reshape(layer.latent.shape).float(), bias.reshape(-1))
    layer.set_step(steps)


def _diagonal(value: Tensor, size: int) -> Tensor:
    return value[:, None, None] * torch.eye(size, dtype=value.dtype)


def _columns(
    layer: QuantConv2d | QuantLinear, x: Tensor, wanted: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What the layer reads (G,N,K) and should give (G,N,O/G), at random positions."""
    if isinstance(layer, QuantLinear):
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


def _round(weight: Tensor, gram: Tensor, steps: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Round ``weight`` (G,O,K), handing errors on along the inverse Hessian's Cholesky factor.

    Returns what each weight had become when its turn came, and its code.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    factor = torch.linalg.cholesky(inverse, upper=True)
    left, codes = weight.clone(), torch.zeros_like(weight)
    for k in range(weight.shape[2]):
        codes[..., k] = torch.round(left[..., k] / steps).clamp(-limit, limit)
        error = (left[..., k] - codes[..., k] * steps) / factor[:, k, k, None]
        left[..., k + 1 :] -= error[..., None] * factor[:, None, k, k + 1 :]
    return left, codes
