"""Calibration: for each quantizer the range with the least squared error, without training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from efquantface.errors import TrainingError
from efquantface.graph.graph import module_nodes
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear
from efquantface.quantize.pairs import PairClamp, largest_pairs
from efquantface.quantize.placement import refresh_biases

_SAMPLES_A_BATCH = 16384  # values that are kept of each tensor and batch
_MAX_SAMPLES = 131072
_FRACTIONS = torch.linspace(1.0, 0.1, 46).tolist()  # of the full range


def set_ranges(
    gm: fx.GraphModule,
    batches: list[Tensor],
    *,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> None:
    """Set the scales of all weights and the ranges of all activations.

    Both ends of an activation range are searched for the least mean squared error on the float network's
    values. Weight scales are searched per channel.

    Args:
        gm: quantized graph, changed in place.
        batches: pixels (N,3,H,W).
        seed: of the values that are kept.
        progress: called with (what, done, total).

    Raises:
        TrainingError: an activation is not finite.
    """
    samples = _observe(gm, batches, seed, progress)
    quantizers = [
        (str(n.target), m) for n, m in module_nodes(gm) if isinstance(m, ActivationQuantizer)
    ]
    for index, (name, quantizer) in enumerate(quantizers):
        values, low, high = samples[name]
        quantizer.set_range(*search_range(values, low, high, quantizer))
        progress("searching ranges", index + 1, len(quantizers))
    for _, module in module_nodes(gm):
        if isinstance(module, QuantConv2d | QuantLinear):
            module.set_scale(
                search_weight_scales(module.weight.detach(), module.limit, module.pair_limit)
            )
    refresh_biases(gm)


@torch.no_grad()
def search_range(
    values: Tensor, low: float, high: float, quantizer: ActivationQuantizer
) -> tuple[float, float]:
    """(low, high) with the least mean squared quantization error on ``values`` (1-D).

    Coordinate descent over both ends, from the full range inwards. Zero stays a code. Symmetric codes
    have one end to search. ``quantizer`` only gives the kind of codes.
    """
    low, high = (0.0 if quantizer.rectified else min(low, 0.0)), max(high, 0.0)
    if quantizer.symmetric:
        high = max(-low, high)
        low = 0.0 if quantizer.rectified else -high
    if high - low <= 0:
        return 0.0, 1.0
    best, best_error = (low, high), _error(values, low, high, quantizer)
    ends: tuple[tuple[bool, bool], ...] = ((False, True), (True, False))
    if quantizer.symmetric or quantizer.rectified:
        ends = ((quantizer.symmetric, True),)
    for _ in range(2):
        for move_low, move_high in ends:
            start = best
            for fraction in _FRACTIONS:
                trial = (
                    low * fraction if move_low else start[0],
                    high * fraction if move_high else start[1],
                )
                if trial[1] - trial[0] <= 0:
                    continue
                error = _error(values, *trial, quantizer)
                if error < best_error:
                    best, best_error = trial, error
    return best


@torch.no_grad()
def search_weight_scales(weight: Tensor, limit: int, pair_limit: int | None = None) -> Tensor:
    """Scales (O,) with the least squared error of each output channel of ``weight`` (O,...).

    Codes stay within +-``limit``, and two of one sign within ``pair_limit`` (:mod:`pairs`).
    """
    flat = weight.flatten(1)
    largest = flat.abs().amax(dim=1).clamp(min=1e-12)
    if pair_limit is not None:
        largest = torch.maximum(largest, largest_pairs(flat) * (limit / pair_limit))
    clamp = None if pair_limit is None else PairClamp(flat, limit, pair_limit)
    best = largest / limit
    best_error = torch.full_like(best, float("inf"))
    for fraction in torch.linspace(1.0, 0.4, 61).tolist():
        scale = (largest * fraction / limit).unsqueeze(1)
        codes = torch.round(flat / scale)
        codes = codes.clamp(-limit, limit) if clamp is None else clamp(codes, scale)
        error = (codes * scale - flat).square().sum(dim=1)
        better = error < best_error
        best = torch.where(better, scale.squeeze(1), best)
        best_error = torch.where(better, error, best_error)
    return best


def _error(values: Tensor, low: float, high: float, quantizer: ActivationQuantizer) -> float:
    qmin, qmax = quantizer.qmin, quantizer.qmax
    if quantizer.symmetric:
        scale, zero_point = max(-low, high) / qmax, 0
    else:
        scale = (high - low) / qmax
        zero_point = min(max(round(-low / scale), 0), qmax)
    codes = torch.clamp(torch.round(values / scale) + zero_point, qmin, qmax)
    return float(((codes - zero_point) * scale - values).square().mean())


@torch.no_grad()
def _observe(
    gm: fx.GraphModule,
    batches: list[Tensor],
    seed: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, tuple[Tensor, float, float]]:
    """Random values, smallest and largest, that each quantizer reads, with quantizers switched off."""
    generator = torch.Generator().manual_seed(seed)
    kept: dict[str, list[Tensor]] = {}
    extremes: dict[str, tuple[float, float]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach()
            assert isinstance(module, ActivationQuantizer)
            if module.rectified:
                x = x.clamp(0, module.max_value)
            x = x.flatten()
            low, high = float(x.min()), float(x.max())
            if not (abs(low) < float("inf") and abs(high) < float("inf")):
                raise TrainingError(f"the network's values before {name} are not finite")
            before = extremes.get(name, (low, high))
            extremes[name] = (min(low, before[0]), max(high, before[1]))
            pick = torch.randint(
                x.numel(), (min(_SAMPLES_A_BATCH, x.numel()),), generator=generator
            )
            kept.setdefault(name, []).append(x[pick.to(x.device)])

        return hook

    hooks = [
        module.register_forward_pre_hook(watch(str(node.target)))
        for node, module in module_nodes(gm)
        if isinstance(module, ActivationQuantizer)
    ]
    enable(gm, False)
    try:
        device = next(gm.parameters()).device
        for index, batch in enumerate(batches):
            gm(batch.to(device).float())
            progress("observing activations", index + 1, len(batches))
    finally:
        enable(gm, True)
        for handle in hooks:
            handle.remove()
    return {
        name: (torch.cat(parts)[:_MAX_SAMPLES], *extremes[name]) for name, parts in kept.items()
    }


def enable(gm: fx.GraphModule, on: bool) -> None:
    """Switch all quantizers on or off. With all off, the graph computes the float network."""
    for module in gm.modules():
        if isinstance(
            module, ActivationQuantizer | InputQuantizer | QuantAffine | QuantConv2d | QuantLinear
        ):
            module.enabled = on


@torch.no_grad()
def layer_errors(
    gm: fx.GraphModule, teacher: fx.GraphModule, pixels: Tensor
) -> list[tuple[str, float]]:
    """Relative squared error of each quantized tensor, with the errors of all earlier layers.

    Args:
        gm: the student.
        teacher: the float network with the student's quantizers, without ranges. They are switched off
            for the comparison.
        pixels: (N,3,H,W).
    """
    enable(teacher, False)
    try:
        expected = _tensors(teacher, pixels)
    finally:
        enable(teacher, True)
    found = _tensors(gm, pixels)
    return [
        (name, float((found[name] - value).square().sum() / value.square().sum().clamp(min=1e-12)))
        for name, value in expected.items()
    ]


def _tensors(gm: fx.GraphModule, pixels: Tensor) -> dict[str, Tensor]:
    """Outputs of all activation quantizers, by name."""
    values: dict[str, Tensor] = {}
    hooks = []
    for node, module in module_nodes(gm):
        if isinstance(module, ActivationQuantizer):
            name = str(node.target)
            hooks.append(
                module.register_forward_hook(
                    lambda _m, _i, output, name=name: values.__setitem__(name, output)
                )
            )
    try:
        gm(pixels.float())
    finally:
        for handle in hooks:
            handle.remove()
    return values
