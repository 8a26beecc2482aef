"""Shortcuts that append channels of zeros, as convolutions, so that their channels can be removed.

dlib's residual blocks widen a stream by zeros. Channels of such a stream can only go one by one before
and after where the zeros are counted, which no padding can say; an identity of 1x1 can, for less than a
hundredth of the network's multiply-accumulates, and it can be trained.
"""

from __future__ import annotations

import copy

import torch
from torch import fx

from efquantface.graph import ops
from efquantface.graph.graph import insert_after, module_nodes, shapes, tidy


def without_zero_channels(gm: fx.GraphModule, height: int, width: int) -> fx.GraphModule:
    """The same function with a 1x1 convolution where zeros were appended to channels.

    The convolution takes the padding's name; zeros around height and width stay a padding after it.

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
