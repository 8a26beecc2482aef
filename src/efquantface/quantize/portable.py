"""Students of full range made portable: weights that could overflow 16-bit sums are rounded again."""

from __future__ import annotations

import copy
import dataclasses

import torch

from efquantface.graph.graph import module_nodes, name_of
from efquantface.graph.model import FaceModel
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.pairs import largest_pairs
from efquantface.quantize.placement import limit_pairs, refresh_biases
from efquantface.quantize.ranges import search_weight_scales


@torch.no_grad()
def made_portable(student: FaceModel) -> tuple[FaceModel, list[str]]:
    """A copy in which all pairs of codes keep their limit, and the names of the layers changed for it.

    In these layers, scales are searched again for the trained weights. Other layers are not changed.
    """
    graph = copy.deepcopy(student.graph)
    before = {
        name_of(node): module.weight_codes()[0].float()
        for node, module in module_nodes(graph)
        if isinstance(module, QuantConv2d | QuantLinear)
    }
    limit_pairs(graph)
    changed = []
    for node, module in module_nodes(graph):
        if not isinstance(module, QuantConv2d | QuantLinear) or module.pair_limit is None:
            continue
        if int(largest_pairs(before[name_of(node)]).max()) > module.pair_limit:
            scales = search_weight_scales(module.weight, module.limit, module.pair_limit)
            module.set_scale(scales)
            changed.append(name_of(node))
    refresh_biases(graph)
    return dataclasses.replace(student, graph=graph), changed
