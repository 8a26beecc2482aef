"""Shortcuts that append channels of zeros become convolutions, so that channels can be removed.

The shortcuts of some of dlib's residual blocks append channels of zeros. A padding only counts its
zeros; it cannot say which channels are left after pruning. A 1x1 convolution with identity weights can,
and it can be trained. It takes less than a hundredth of the network's multiply-accumulates.
"""

from __future__ import annotations

import copy

import torch
from torch import fx

from efquantface.graph import ops
from efquantface.graph.graph import insert_after, module_nodes, shapes, tidy


def without_zero_channels(gm: fx.GraphModule, height: int, width: int) -> fx.GraphModule:
    """A graph of the same function, with 1x1 convolutions in place of appended channels of zeros.

    A convolution takes its padding's name. Zeros around height and width stay a padding after it.

    Args:
        gm: canonical float graph, which is not changed.
        height, width: of a crop.
    """
    if not any(isinstance(m, ops.ZeroPad) and m.channels for m in gm.modules()):
        return gm
    found = shapes(gm, height, width)
    opened = copy.deepcopy(gm)
    for node, pad in module_nodes(opened):
        if isinstance(pad, ops.ZeroPad) and pad.channels:
            name = str(node.target)
            outputs = found[name][1]
            weight = torch.eye(outputs, outputs - pad.channels)[:, :, None, None]
            opened.set_submodule(name, ops.conv_from(weight, None))
            border = (pad.top, pad.bottom, pad.left, pad.right)
            if any(border):
                insert_after(opened, node, f"{name}_border", ops.ZeroPad(0, *border))
    return tidy(opened).eval()
