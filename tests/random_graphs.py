"""Random small canonical graphs for property-based tests."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import INPUT, GraphBuilder

SIZE = 8
_STEPS = ("conv", "affine", "prelu", "clamp", "residual", "maxpool", "avgpool", "pad", "excite")


@st.composite
def graphs(draw: st.DrawFn) -> fx.GraphModule:
    """Graphs from (N,3,8,8) to (N,5) with random weights: up to seven operators and an end."""
    builder, at, channels, size = GraphBuilder(), INPUT, 3, SIZE
    for index, step in enumerate(draw(st.lists(st.sampled_from(_STEPS), min_size=1, max_size=7))):
        name = f"{step}{index}"
        if step == "conv":
            out, kernel = draw(st.sampled_from([2, 4])), draw(st.sampled_from([1, 3]))
            padding, stride = draw(st.sampled_from([0, kernel // 2])), draw(st.sampled_from([1, 2]))
            if size + 2 * padding < kernel:
                continue
            groups = draw(st.sampled_from([1, channels])) if out % channels == 0 else 1
            conv = ops.Conv2d(channels, out, kernel, stride, padding, groups=groups)
            at, channels = builder.add(name, conv, at), out
            size = (size + 2 * padding - kernel) // stride + 1
        elif step == "affine":
            at = builder.add(name, ops.Affine(channels), at)
        elif step == "prelu":
            at = builder.add(name, ops.PReLU(channels), at)
        elif step == "clamp":
            low, high = draw(st.sampled_from([(0.0, None), (0.0, 6.0), (None, 0.0)]))
            at = builder.add(name, ops.Clamp(low, high), at)
        elif step == "residual":
            branch = builder.add(name, ops.Conv2d(channels, channels, 3, padding=1), at)
            at = builder.add(f"{name}_sum", ops.Add(), branch, at)
        elif step == "excite":
            pooled = builder.add(name, ops.GlobalAvgPool(), at)
            weights = builder.add(f"{name}_weights", ops.Sigmoid(), pooled)
            at = builder.add(f"{name}_product", ops.Multiply(), at, weights)
        elif step == "pad":
            at = builder.add(name, ops.ZeroPad(1, bottom=1, right=1), at)
            channels, size = channels + 1, size + 1
        elif size > 1:
            pool = ops.MaxPool2d(2, 2) if step == "maxpool" else ops.AvgPool2d(2, 2)
            at, size = builder.add(name, pool, at), size // 2
    if draw(st.booleans()):
        at = builder.add("last", ops.Conv2d(channels, 5, size), at)
        at = builder.add("flatten", ops.Flatten(), at)
    else:
        at = builder.add("flatten", ops.Flatten(), at)
        at = builder.add("last", ops.Linear(channels * size * size, 5), at)
    if draw(st.booleans()):
        at = builder.add("norm", ops.Affine(5), at)
    gm = builder.finish(at)
    _randomize(gm, draw(st.integers(0, 2**16)))
    return gm


@torch.no_grad()
def _randomize(gm: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in gm.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.normal_(0, 1 / fan**0.5, generator=generator)


def crops(count: int = 3) -> Tensor:
    """Inputs (count,3,8,8) of about unit size."""
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
