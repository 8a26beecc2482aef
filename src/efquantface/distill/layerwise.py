"""Layer-wise distillation: the outputs of residual blocks are trained to match the teacher's, too.

Through many layers of few bits the embedding's gradient becomes weak and noisy. Comparing each block's
output with the teacher's gives early layers a gradient of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, module_of, name_of
from efquantface.quantize.fake_quant import ActivationQuantizer

_SMALLEST = 1e-12


class LayerDistillation(nn.Module):
    """Student and teacher side by side: pixels (B,3,H,W) -> (embedding (B,D), |s - t|^2, |t|^2).

    The sums (L,) are over the batch, one for each layer; :func:`layer_error` turns them into an error.
    The layers are the network's additions, or all its convolutions if it has none.

    Args:
        student: quantized graph; its modules are shared, not copied.
        teacher: the float graph that it was quantized from, with the same equalization.
    """

    def __init__(self, student: fx.GraphModule, teacher: fx.GraphModule) -> None:
        super().__init__()
        pairs = _pairs(student, teacher)
        self.layers = [name_of(t) for _, t in pairs]
        self.student = _with_outputs(student, [s for s, _ in pairs])
        self.teacher = _with_outputs(teacher, [t for _, t in pairs]).requires_grad_(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            _, *wanted = self.teacher(pixels)
        embedding, *found = self.student(pixels)
        none = embedding.new_zeros(0)
        errors = [(s - t).square().sum() for s, t in zip(found, wanted, strict=True)]
        energies = [t.square().sum() for t in wanted]
        return (
            embedding,
            torch.stack(errors) if errors else none,
            torch.stack(energies) if energies else none,
        )


def layer_error(errors: Tensor, energies: Tensor) -> Tensor:
    """The mean over layers of ``|s - t|^2 / |t|^2``, from sums (L,) over one batch."""
    shares = errors / energies.clamp(min=_SMALLEST)
    return sum(shares.unbind(), start=errors.new_zeros(())) / max(len(shares), 1)


def _pairs(student: fx.GraphModule, teacher: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Pairs of a student's and a teacher's node with the same value."""
    by_name = {name_of(node): node for node, _ in module_nodes(student)}
    modules = module_nodes(teacher)
    chosen = [n for n, m in modules if isinstance(m, ops.Add)]
    if not chosen:
        chosen = [n for n, m in modules if isinstance(m, ops.Conv2d)]
    pairs = []
    for node in chosen:
        quantizers = [
            user
            for user in by_name[name_of(node)].users
            if isinstance(module_of(student, user), ActivationQuantizer)
        ]
        if not quantizers:
            continue
        quantizer = module_of(student, quantizers[0])
        user = next(iter(node.users))
        rectifier = module_of(teacher, user)
        rectified = isinstance(quantizer, ActivationQuantizer) and quantizer.rectified
        if rectified and isinstance(rectifier, ops.Clamp):
            node = user  # the student's quantizer includes the ReLU
        pairs.append((quantizers[0], node))
    return pairs


def _with_outputs(gm: fx.GraphModule, nodes: list[fx.Node]) -> fx.GraphModule:
    """A graph with the same modules that returns the embedding and the values of ``nodes``."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    embedding = graph.graph_copy(gm.graph, copies)
    graph.output((embedding, *(copies[node] for node in nodes)))
    return fx.GraphModule(gm, graph)
