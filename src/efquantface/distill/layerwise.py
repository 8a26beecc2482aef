"""Layer-wise distillation: the outputs of residual blocks are pulled to the teacher's as well.

Through many layers of few bits the embedding's gradient is a weak and noisy guide; each block's
output compared with the teacher's tells early layers what they lost.
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

    Both sums (L,) run over the batch, one a layer; :func:`layer_error` makes an error of them. The
    layers are the network's additions, or all its convolutions where it has none.

    Args:
        student: quantized graph; its modules are shared, not copied.
        teacher: the float graph that it was quantized from (its channels scaled alike).
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
    """Nodes of the student and the teacher that hold the same value."""
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
            node = user  # the student's quantizer stands for the ReLU as well
        pairs.append((quantizers[0], node))
    return pairs


def _with_outputs(gm: fx.GraphModule, nodes: list[fx.Node]) -> fx.GraphModule:
    """The same modules in a graph that gives the embedding and the values of ``nodes``."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    embedding = graph.graph_copy(gm.graph, copies)
    graph.output((embedding, *(copies[node] for node in nodes)))
    return fx.GraphModule(gm, graph)
