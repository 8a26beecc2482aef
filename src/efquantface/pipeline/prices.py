"""What the multiply-accumulates of each group of channels cost in time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.pipeline.clock import Measure
from efquantface.prune.channels import Channels

_NOISE = 0.01  # of a network's time: what two timings of one network differ by
_SPREAD = 0.5  # of the mean price: how much prices are expected to differ
_LEAST = 0.1  # of the mean price: a group that seems to cost nothing goes last, not first


def channel_prices(
    model: FaceModel,
    measure: Measure,
    *,
    round_to: int = 8,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, float]:
    """Ms of a multiply-accumulate of the channels that each layer makes, by layer.

    Each group of channels is halved, and the network timed. Such a difference is little more than what
    two timings of one network differ by, so a price is drawn to the mean of all, the more the fewer
    multiply-accumulates it was measured by (the mean of a normal distribution with a known prior).

    Args:
        model: canonical float model.
        measure: ms of a model's student.
        round_to: channels that are left are a multiple of it.
        progress: called with (done, total).
    """
    size = (model.contract.height, model.contract.width)
    before, whole = measure(model), float(macs(model.graph, *size))
    groups = Channels(model.graph, *size).groups
    saved: dict[int, tuple[float, float]] = {}
    for number, group in enumerate(groups):
        fewer = group.size - max(round_to, -(-group.size // 2 // round_to) * round_to)
        if fewer > 0:
            channels = Channels(model.graph, *size)
            channels.remove(channels.groups[number], range(fewer))
            graph = channels.finish()
            thinner = dataclasses.replace(model, graph=graph, notes=list(model.notes))
            saved[number] = before - measure(thinner), whole - float(macs(graph, *size))
        progress(number + 1, len(groups))
    total = sum(products for _, products in saved.values())
    mean = sum(ms for ms, _ in saved.values()) / total if total else 0.0
    if mean <= 0:  # nothing was measured, or noise
        return {writer: 1.0 for group in groups for writer in group.writers}
    prices = {}
    for number, group in enumerate(groups):
        ms, products = saved.get(number, (0.0, 0.0))
        certain = (products / (_NOISE * before)) ** 2
        prior = 1 / (_SPREAD * mean) ** 2
        price = (certain * (ms / products if products else 0.0) + prior * mean) / (certain + prior)
        prices.update(dict.fromkeys(group.writers, max(price, _LEAST * mean)))
    return prices
