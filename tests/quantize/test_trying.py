"""An optimization that fails or changes a network is left out; nothing is lost."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from efquantface.graph import ops
from efquantface.graph.graph import INPUT, GraphBuilder
from efquantface.quantize.trying import tried


def network() -> fx.GraphModule:
    torch.manual_seed(0)
    builder = GraphBuilder()
    at = builder.add("conv", ops.Conv2d(3, 4, 4), INPUT)
    at = builder.add("fc", ops.Linear(4, 5), builder.add("flat", ops.Flatten(), at))
    return builder.finish(at)


BATCHES = [torch.full((2, 3, 4, 4), 9, dtype=torch.uint8)]


def run(
    change: float, error: Exception | None = None
) -> tuple[fx.GraphModule, fx.GraphModule, str]:
    gm = network()

    def optimization(found: fx.GraphModule, batches: list[Tensor], progress: object) -> int:
        found.conv.weight.data *= 1 + change
        if error is not None:
            raise error
        return 1

    kept, reason = tried(optimization, gm, BATCHES, lambda *_: None)
    return gm, kept, reason


def test_what_changes_nothing_is_kept() -> None:
    gm, kept, reason = run(1e-6)
    assert kept is not gm
    assert reason == ""
    assert not torch.equal(kept.conv.weight, gm.conv.weight)


def test_what_fails_is_left_out() -> None:
    gm, kept, reason = run(0.0, RuntimeError("sizes 3 and 4"))
    assert kept is gm
    assert "sizes 3 and 4" in reason


def test_what_changes_embeddings_is_left_out() -> None:
    gm, kept, reason = run(0.5)
    assert kept is gm
    assert "of their length" in reason
    assert torch.equal(gm.conv.weight, network().conv.weight)
