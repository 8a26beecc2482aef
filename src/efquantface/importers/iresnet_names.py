"""Names of IResNet and IR: arcface_torch, AdaFace, CVLFace, TFace; InsightFace_Pytorch, face.evoLVe."""

from __future__ import annotations

import re

from torch import Tensor, nn

from efquantface.backbones.iresnet import DEPTHS, IResNet
from efquantface.importers.naming import NotRecognized, Tensors, count, with_affine


def iresnet(tensors: Tensors) -> nn.Module:
    """The network that our names and shapes describe."""
    counts = tuple(count(tensors, rf"layer{n}\.(\d+)\.") for n in (1, 2, 3, 4))
    depth = next((d for d, blocks in DEPTHS.items() if blocks == counts), None)
    if depth is None:
        raise NotRecognized(f"stages of {counts} blocks; known are {sorted(DEPTHS.values())}")
    return IResNet(
        depth,
        tensors["fc.weight"].shape[0],
        se=any(".se_block." in name for name in tensors),
        pooled_shortcut="layer1.0.downsample.0.weight" not in tensors,
        middle_norm="layer1.0.bn2.running_mean" in tensors,
    )


_UNITS = {"0": "bn1", "1": "conv1", "2": "bn2", "3": "prelu", "4": "conv2", "5": "bn3"}
_FIVE_UNITS = {"0": "bn1", "1": "conv1", "2": "prelu", "3": "conv2", "4": "bn3", "5": "se_block"}
_IR_HEAD = {
    "input_layer.0": "conv1",
    "input_layer.1": "bn1",
    "input_layer.2": "prelu",
    "output_layer.0": "bn2",
    "output_layer.3": "fc",
    "output_layer.4": "features",
}


def ir_name(name: str) -> str:
    """AdaFace's names to ours. Blocks keep the numbers of their one list (``body.N``)."""
    return _named(name, _UNITS)


def five_unit_name(name: str) -> str:
    """InsightFace_Pytorch's names to ours. Blocks have no BatchNorm between convolution and PReLU."""
    return _named(name, _FIVE_UNITS)


def _named(name: str, units: dict[str, str]) -> str:
    for theirs, ours in _IR_HEAD.items():
        if name.startswith(theirs + "."):
            return ours + name[len(theirs) :]
    match = re.match(r"body\.(\d+)\.(res_layer|shortcut_layer)\.(\w+)\.(.+)", name)
    if match is None:
        return name
    block, part, unit, rest = match.groups()
    if part == "shortcut_layer":
        return f"body.{block}.downsample.{unit}.{rest}"
    return f"body.{block}.{units.get(unit, unit)}.{rest}"


def ir(tensors: Tensors) -> nn.Module:
    """The network of a checkpoint with one list of blocks."""
    total = count(tensors, r"body\.(\d+)\.")
    if total:  # not renumbered
        raise NotRecognized(f"{total} blocks; known are {[sum(b) for b in DEPTHS.values()]}")
    return iresnet(tensors)


def renumbered(tensors: Tensors) -> dict[str, Tensor]:
    """Tensors of ``body.N`` renamed to ``layerS.B``; :func:`with_affine` is applied, too."""
    total = count(tensors, r"body\.(\d+)\.")
    depth = next((d for d, blocks in DEPTHS.items() if sum(blocks) == total), None)
    places = [
        f"layer{stage + 1}.{block}"
        for stage, blocks in enumerate(DEPTHS.get(depth or 0, ()))
        for block in range(blocks)
    ]
    result = {}
    for name, value in tensors.items():
        match = re.match(r"body\.(\d+)\.(.+)", name)
        inside = match is not None and int(match[1]) < len(places)
        result[f"{places[int(match[1])]}.{match[2]}" if match and inside else name] = value
    return with_affine(result)
