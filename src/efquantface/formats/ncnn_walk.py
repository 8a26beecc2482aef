"""An ncnn file compared with its student, layer by layer: each layer reads the file's earlier values.

ncnn's codes of an input are ``round(float32(x * scale))``, halves away from zero, within -127 and 127. A
layer is right where it gives what exact arithmetic computes from these codes, up to the rounding of its
kernels. Some kernels multiply by reciprocals that are only nearly right. Every layer is judged alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from efquantface.export.values import array
from efquantface.formats.ncnn_form import LIMIT, IntegerLayer
from efquantface.formats.ncnn_writer import Written
from efquantface.formats.symmetric import float_bias
from efquantface.graph.graph import module_of, name_of
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear

Blobs = Mapping[str, npt.NDArray[np.float32]]
_ROUNDED = 1e-5  # of the largest value; sums in float32 lose this much
_NEARLY = 3e-4  # of a value; reciprocals in ncnn's depthwise kernels on AVX-512 (seen: 1.3e-4)
_FEW, _SHARE = (
    1,
    2e-3,
)  # values of a channel that may differ: an input on the edge between two codes


def wrong_layers(
    form: FaceModel, written: Written, crops: Sequence[tuple[Tensor, Blobs]]
) -> list[str]:
    """Layers that do not compute what the form's do, one sentence each.

    Args:
        form: the student in ncnn's form (:func:`for_ncnn`).
        written: the network that was written.
        crops: pixels (1,3,H,W), and the file's blobs for them by name.
    """
    wrong: dict[str, npt.NDArray[np.int64]] = {}
    counts: dict[str, int] = {}
    worst: dict[str, float] = {}
    for pixels, blobs in crops:
        walker = _Walker(form, written, blobs)
        try:
            with torch.no_grad():
                walker.run(pixels.double())
        except _OtherSize as error:
            return [f"layer {error.layer} gives {error.found} values, not {error.wanted}"]
        for name, (beyond, allowed) in walker.found.items():
            channels = beyond > allowed
            counts[name] = counts.get(name, 0) + channels[0].size
            wrong[name] = wrong.get(name, 0) + channels.reshape(len(channels), -1).sum(axis=1)
            size = float((beyond / allowed).max()) if np.isfinite(beyond).all() else np.inf
            worst[name] = max(worst.get(name, 0.0), size)
    return [
        f"layer {name} differs in up to {each.max()} of {counts[name]} values a channel, by up to "
        f"{worst[name]:.2g} times what rounding explains"
        for name, each in wrong.items()
        if each.max() > _FEW + _SHARE * counts[name]
    ]


@torch.no_grad()
def shaken(form: FaceModel, pixels: Tensor) -> npt.NDArray[np.float32]:
    """Embeddings (N,D) by another correct computation of a form: scales of layers are off by a little.

    Their distance from the form's embeddings is what ncnn's rounding alone explains.
    """
    gm, generator = copy.deepcopy(form.graph), torch.Generator().manual_seed(0)
    for node in list(gm.graph.nodes):
        module = module_of(gm, node)
        if isinstance(module, IntegerLayer):
            size = _ROUNDED if _is_dense(module) else _NEARLY
            channels = module.scale().numel()
            factor = 1 + size * (torch.rand(channels, generator=generator) - 0.5)
            module.register_forward_hook(partial(_scaled, factor))
    return np.asarray(gm(pixels.float()).numpy(), np.float32)


def _scaled(factor: Tensor, module: nn.Module, inputs: Any, result: Tensor) -> Tensor:
    return result * factor.view(1, -1, *(1,) * (result.dim() - 2))


class _OtherSize(Exception):
    """A blob and the form's value have different numbers of values."""

    def __init__(self, layer: str, found: int, wanted: int) -> None:
        super().__init__(layer)
        self.layer, self.found, self.wanted = layer, found, wanted


class _Walker(fx.Interpreter):
    """Computes a form in float64, compares each value with the file's, and goes on with the file's.

    Attributes:
        found: distances (C,...) of the file's values from right ones, and the distances allowed.
    """

    def __init__(self, form: FaceModel, written: Written, blobs: Blobs) -> None:
        super().__init__(form.graph)
        self.written, self.blobs = written, blobs
        self.tolerances: dict[str, Tensor] = {}  # of results that still have a limit behind them
        self.found: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}

    def run_node(self, n: fx.Node) -> Any:
        assert isinstance(self.module, fx.GraphModule)
        module = module_of(self.module, n)
        if module is None:
            return super().run_node(n)
        source = n.all_input_nodes[0]
        inputs = [self.env[a] for a in n.args if isinstance(a, fx.Node)]
        if isinstance(module, ActivationQuantizer):
            return self._codes(module, inputs[0], self._step(source))
        nearly = self.tolerances.get(name_of(source), torch.zeros(()))
        if isinstance(module, IntegerLayer):
            before = module_of(self.module, source)
            assert isinstance(before, ActivationQuantizer)
            right, total = _integer(module, inputs[0], before.qparams()[0])
            slack = 0.0 if _is_dense(module) else _NEARLY
            nearly = slack * total.abs()
        else:
            right = _applied(module, inputs)
        name = name_of(n)
        if name not in self.written.blobs:  # part of the layer in front or behind
            self.tolerances[name] = nearly
            return right
        return self._compared(name, right, nearly)

    def _step(self, node: fx.Node) -> float | None:
        """The scale of codes where the file holds them in place of a value; None where it does not."""
        return self.written.steps.get(self.written.blobs.get(name_of(node), ""))

    def _codes(self, module: ActivationQuantizer, x: Tensor, step: float | None) -> Tensor:
        if step is not None:
            return x
        scale, _ = module.qparams()
        held = x.float().clamp(module.qmin * scale, module.qmax * scale)
        if (module.qmin, module.qmax) in ((-LIMIT, LIMIT), (0, LIMIT)):
            held = x.float()
        steps = (held * torch.tensor(1 / scale, dtype=torch.float32)).double()
        return (steps.sign() * (steps.abs() + 0.5).floor()).clamp(-LIMIT, LIMIT)

    def _compared(self, name: str, right: Tensor, nearly: Tensor) -> Tensor:
        """The file's value; its distance from ours is noted."""
        blob = self.written.blobs[name]
        held = self.blobs[blob]
        if held.size != right.numel():
            raise _OtherSize(name, held.size, right.numel())
        theirs = torch.from_numpy(held.astype(np.float64)).reshape(right.shape)
        step = self.written.steps.get(blob)
        allowed = nearly + _ROUNDED * right.abs().max() + torch.zeros_like(right)
        value = right
        if step is not None:
            value, allowed = (right / step).clamp(-LIMIT, LIMIT), allowed / step + 0.5
        self.found[name] = (array((value - theirs).abs()[0]), array(allowed[0].clamp(min=1e-30)))
        return theirs


def _integer(module: IntegerLayer, codes: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """A layer's result in float64, and the same without its bias."""
    weight, scales = module.weight_codes()
    bias = torch.from_numpy(float_bias(module, step).astype(np.float64))
    factor = float(np.float32(step)) * scales.double()
    if isinstance(module, QuantLinear):
        total = F.linear(codes, weight.double()) * factor
        return total + bias, total
    if isinstance(module, QuantAffine):
        total = codes * weight.double().view(1, -1, 1, 1)
    else:
        places = (module.stride, module.padding, module.dilation, module.groups)
        total = F.conv2d(codes, weight.double(), None, *places)
    total = total * factor.view(1, -1, 1, 1)
    return total + bias.view(1, -1, 1, 1), total


def _is_dense(module: IntegerLayer) -> bool:
    """Whether each output sums all channels. ncnn has other kernels for the rest."""
    return isinstance(module, QuantLinear) or (
        isinstance(module, QuantConv2d) and module.groups == 1
    )


def _applied(module: nn.Module, inputs: list[Tensor]) -> Tensor:
    """A float operator's result, computed with its parameters in float64."""
    call: Callable[..., Tensor] = module.double()
    return call(*inputs)
