"""The graph that trains on the CPU: one kernel for each chain of quantizers and per-channel products.

A kernel moves a PReLU in integers through memory once each for input, output and their gradients. Single
operators would do so many times per training step.
"""

from __future__ import annotations

import math

from torch import Tensor, fx, nn

from efquantface.graph import ops
from efquantface.graph.graph import add_module, module_nodes, module_of
from efquantface.quantize import native
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine


class FusedAffine(nn.Module):
    """A per-channel affine and the quantizer behind it. The modules are shared, not copied."""

    def __init__(self, affine: QuantAffine, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        self.affine, self.quantizer = affine, quantizer

    def forward(self, x: Tensor) -> Tensor:
        if not (native.applies(x) and self.quantizer.enabled):
            result: Tensor = self.quantizer(self.affine(x))
            return result
        weight, bias = self.affine.quantized_weight(), self.affine.quantized_bias()
        return native.scaled(x, weight, bias, self.quantizer.now())


class FusedPReLU(nn.Module):
    """The parts of a PReLU in integers. The modules are shared, not copied."""

    def __init__(
        self,
        before: ActivationQuantizer,
        affine: QuantAffine,
        product: ActivationQuantizer,
        total: ActivationQuantizer,
        limit: float,
    ) -> None:
        super().__init__()
        self.before, self.affine, self.product, self.total = before, affine, product, total
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        quantizers = (self.before, self.product, self.total)
        if not (native.applies(x) and all(q.enabled for q in quantizers)):
            a = self.before(x)
            result: Tensor = self.total(a + self.product(self.affine(a.clamp(max=self.limit))))
            return result
        before, product, total = (q.now() for q in quantizers)
        weight, bias = self.affine.quantized_weight(), self.affine.quantized_bias()
        return native.prelu(x, before, weight, bias, product, total, self.limit)


def fused(gm: fx.GraphModule) -> fx.GraphModule:
    """The same modules and parameters in a graph with fewer, larger operators."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(gm.graph, {}))
    view = fx.GraphModule(gm, graph)
    for fuse in (_fuse_prelu, _fuse_affine):  # the longer chain first
        for node, module in module_nodes(view):
            if node in view.graph.nodes and isinstance(module, ActivationQuantizer):
                fuse(view, node, module)
    view.graph.lint()
    view.recompile()
    return view


def _fuse_prelu(view: fx.GraphModule, node: fx.Node, total: ActivationQuantizer) -> None:
    """Fuse a PReLU in integers if ``node`` is the quantizer of its sum."""
    add = _only_source(view, node, ops.Add)
    if add is None or len(add.args) != 2:
        return
    a, product = add.args
    if not isinstance(a, fx.Node) or not isinstance(product, fx.Node) or len(product.users) > 1:
        return
    affine = _only_source(view, product, QuantAffine)
    if affine is None:
        return
    negative = _only_source(view, affine, ops.Clamp)
    parts = [affine] if negative is None else [affine, negative]
    before, inner, scale = (module_of(view, n) for n in (a, product, affine))
    if not isinstance(before, ActivationQuantizer) or not isinstance(inner, ActivationQuantizer):
        return
    assert isinstance(scale, QuantAffine)
    if parts[-1].args[0] is not a or set(a.users) != {parts[-1], add}:
        return
    clamp = None if negative is None else module_of(view, negative)
    if isinstance(clamp, ops.Clamp) and (clamp.low, clamp.high) != (None, 0.0):
        return
    made = FusedPReLU(before, scale, inner, total, math.inf if clamp is None else 0.0)
    _replace(view, a.args[0], [node, add, product, *parts, a], made)


def _fuse_affine(view: fx.GraphModule, node: fx.Node, quantizer: ActivationQuantizer) -> None:
    affine = _only_source(view, node, QuantAffine)
    if affine is None:
        return
    scale = module_of(view, affine)
    assert isinstance(scale, QuantAffine)
    _replace(view, affine.args[0], [node, affine], FusedAffine(scale, quantizer))


def _only_source(view: fx.GraphModule, node: fx.Node, kind: type[nn.Module]) -> fx.Node | None:
    """The first input of ``node`` if its module is of ``kind`` and it has no other reader; else None."""
    source = node.args[0]
    if isinstance(source, fx.Node) and len(source.users) == 1:
        return source if isinstance(module_of(view, source), kind) else None
    return None


def _replace(view: fx.GraphModule, source: object, nodes: list[fx.Node], module: nn.Module) -> None:
    """Replace ``nodes``, the last of the chain first, by ``module``."""
    assert isinstance(source, fx.Node)
    name = add_module(view, f"{nodes[0].target}_fused", module)
    with view.graph.inserting_after(nodes[0]):
        made = view.graph.call_module(name, (source,))
    nodes[0].replace_all_uses_with(made)
    for node in nodes:
        view.graph.erase_node(node)
