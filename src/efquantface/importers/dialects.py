"""Names of tensors in the field's checkpoints, and the backbone behind each way of naming.

A dialect knows a tensor name that only its checkpoints have (whatever stands in front of it is the
prefix of a wrapper: ``module.``, ``model.``, ``backbone.``), renames tensors to our backbones' names,
and reads sizes off their shapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from efquantface.backbones.dlib import DlibResNet
from efquantface.backbones.edgeface import edgeface_from, edgeface_name
from efquantface.backbones.iresnet import DEPTHS, IResNet
from efquantface.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetConfig
from efquantface.backbones.mobilenetv2 import MobileNetV2

Tensors = Mapping[str, Tensor]


class NotRecognized(Exception):
    """The tensors begin like a dialect's and go on otherwise; the text says how."""


@dataclass(frozen=True)
class Dialect:
    """One way of naming.

    Attributes:
        name: what it is called in messages.
        signature: a tensor that every checkpoint of it has.
        rename: a tensor's name in our backbone, or the same name where it has none.
        build: the backbone for renamed tensors; raises :class:`NotRecognized` or ``KeyError``.
        preprocess: how these networks usually want their pixels (``contract.PREPROCESS``).
        by_prefix: the same where the names begin with a wrapper of another repository.
        size: height and width of a crop.
    """

    name: str
    signature: str
    rename: Callable[[str], str]
    build: Callable[[Tensors], nn.Module]
    preprocess: str = "insightface"
    by_prefix: tuple[tuple[str, str], ...] = ()
    size: int = 112

    def family(self, prefix: str) -> str:
        """The preprocessing of checkpoints with this prefix."""
        return next((how for start, how in self.by_prefix if prefix == start), self.preprocess)


def _rules(*rules: tuple[str, str]) -> Callable[[str], str]:
    """Rename by the first rule (pattern of the whole beginning, replacement) that fits."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def rename(name: str) -> str:
        for pattern, replacement in compiled:
            renamed, count = pattern.subn(replacement, name, count=1)
            if count:
                return renamed
        return name

    return rename


def _count(tensors: Tensors, pattern: str) -> int:
    """How many different first groups of ``pattern`` the names have."""
    found = {m.group(1) for m in (re.match(pattern, name) for name in tensors) if m}
    return len(found)


# --- IResNet ---------------------------------------------------------------------------------


def _iresnet(tensors: Tensors) -> nn.Module:
    counts = tuple(_count(tensors, rf"layer{n}\.(\d+)\.") for n in (1, 2, 3, 4))
    depth = next((d for d, blocks in DEPTHS.items() if blocks == counts), None)
    if depth is None:
        raise NotRecognized(f"stages of {counts} blocks; known are {sorted(DEPTHS.values())}")
    return IResNet(
        depth,
        tensors["fc.weight"].shape[0],
        se=any(".se_block." in name for name in tensors),
        pooled_shortcut="layer1.0.downsample.0.weight" not in tensors,
    )


_IR_UNITS = {"0": "bn1", "1": "conv1", "2": "bn2", "3": "prelu", "4": "conv2", "5": "bn3"}
_IR_HEAD = {
    "input_layer.0": "conv1",
    "input_layer.1": "bn1",
    "input_layer.2": "prelu",
    "output_layer.0": "bn2",
    "output_layer.3": "fc",
    "output_layer.4": "features",
}


def _ir_name(name: str) -> str:
    """AdaFace's names, its one list of blocks still numbered through (``body.N``)."""
    for theirs, ours in _IR_HEAD.items():
        if name.startswith(theirs + "."):
            return ours + name[len(theirs) :]
    match = re.match(r"body\.(\d+)\.(res_layer|shortcut_layer)\.(\w+)\.(.+)", name)
    if match is None:
        return name
    block, part, unit, rest = match.groups()
    if part == "shortcut_layer":
        return f"body.{block}.downsample.{unit}.{rest}"
    return f"body.{block}.{_IR_UNITS.get(unit, unit)}.{rest}"


def _ir(tensors: Tensors) -> nn.Module:
    total = _count(tensors, r"body\.(\d+)\.")
    if total:  # not renumbered
        raise NotRecognized(f"{total} blocks; known are {[sum(b) for b in DEPTHS.values()]}")
    return _iresnet(tensors)


def renumbered(tensors: Tensors) -> dict[str, Tensor]:
    """``body.N`` as ``layerS.B``, and the scale and shift that ``affine=False`` leaves out."""
    total = _count(tensors, r"body\.(\d+)\.")
    depth = next((d for d, blocks in DEPTHS.items() if sum(blocks) == total), None)
    places = [
        f"layer{stage + 1}.{block}"
        for stage, count in enumerate(DEPTHS.get(depth or 0, ()))
        for block in range(count)
    ]
    result = {}
    for name, value in tensors.items():
        match = re.match(r"body\.(\d+)\.(.+)", name)
        inside = match is not None and int(match[1]) < len(places)
        result[f"{places[int(match[1])]}.{match[2]}" if match and inside else name] = value
    for norm in ("features", "bn"):
        if f"{norm}.running_mean" in result and f"{norm}.weight" not in result:
            mean = result[f"{norm}.running_mean"]
            result[f"{norm}.weight"], result[f"{norm}.bias"] = (
                torch.ones_like(mean),
                torch.zeros_like(mean),
            )
    return result


# --- MobileFaceNet ---------------------------------------------------------------------------

_UNIT = {"0": "conv", "1": "bn", "2": "act"}
_PARTS = {"0": "expand", "1": "depthwise", "2": "project"}
_MBF_PLACES = ("stem", "stem_dw", "down1", "stage1", "down2", "stage2", "down3", "stage3")
_FOAMLIU_BLOCKS = (  # features.N
    "down1",
    *(f"stage1.{i}" for i in range(4)),
    "down2",
    *(f"stage2.{i}" for i in range(6)),
    "down3",
    *(f"stage3.{i}" for i in range(2)),
)


def _mbf_name(name: str) -> str:
    """arcface_torch's names: everything is a numbered layer of layers."""
    match = re.match(r"(layers\.(\d)|conv_sep|features)\.((?:layers\.\d+\.)+)(\w+)$", name)
    if match is None or (match[2] is not None and int(match[2]) >= len(_MBF_PLACES)):
        return name
    numbers = re.findall(r"\d+", match[3])
    if match[1] == "features":  # GDC: a convolution with BatchNorm, flatten, linear, BatchNorm
        inner = {"2": "linear", "3": "bn"}.get(numbers[0])
        return f"{inner}.{match[4]}" if inner else f"gdc.{_UNIT.get(numbers[-1], '?')}.{match[4]}"
    place = "sep" if match[1] == "conv_sep" else _MBF_PLACES[int(match[2])]
    parts = [place]
    if len(numbers) == 3:  # block of a stage, convolution of the block, layer of the convolution
        parts.append(numbers[0])
    if len(numbers) >= 2:
        parts.append(_PARTS.get(numbers[-2], "?"))
    return ".".join([*parts, _UNIT.get(numbers[-1], "?"), match[4]])


_evolve_name = _rules(
    (r"^output_layer\.", ""),
    (r"^conv1\.", "stem."),
    (r"^conv2_dw\.", "stem_dw."),
    (r"^conv_23\.", "down1."),
    (r"^conv_3\.model\.", "stage1."),
    (r"^conv_34\.", "down2."),
    (r"^conv_4\.model\.", "stage2."),
    (r"^conv_45\.", "down3."),
    (r"^conv_5\.model\.", "stage3."),
    (r"^conv_6_sep\.", "sep."),
)
_evolve_inner = _rules(
    (r"^conv_6_dw\.", "gdc."),
    (r"^(down\d|stage\d\.\d+)\.conv\.", r"\1.expand."),
    (r"^(down\d|stage\d\.\d+)\.conv_dw\.", r"\1.depthwise."),
)


def _evolve(name: str) -> str:
    """The names of InsightFace_Pytorch, face.evoLVe and QuantFace."""
    renamed = _evolve_inner(_evolve_name(name))
    return re.sub(r"\.prelu\.(\w+)$", r".act.\1", renamed)


_foamliu_inner = _rules(
    (r"\.conv\.0\.0\.", ".expand.conv."),
    (r"\.conv\.0\.1\.", ".expand.bn."),
    (r"\.conv\.1\.0\.", ".depthwise.conv."),
    (r"\.conv\.1\.1\.", ".depthwise.bn."),
    (r"\.conv\.2\.", ".project.conv."),
    (r"\.conv\.3\.", ".project.bn."),
)
_foamliu_head = _rules(
    (r"^conv1\.0\.", "stem.conv."),
    (r"^conv1\.1\.", "stem.bn."),
    (r"^dw_conv\.depthwise\.", "stem_dw.conv."),
    (r"^dw_conv\.bn1\.", "stem_dw.bn."),
    (r"^dw_conv\.pointwise\.", "stem_pw.conv."),
    (r"^dw_conv\.bn2\.", "stem_pw.bn."),
    (r"^conv2\.0\.", "sep.conv."),
    (r"^conv2\.1\.", "sep.bn."),
    (r"^gdconv\.depthwise\.", "gdc.conv."),
    (r"^gdconv\.bn\.", "gdc.bn."),
    (r"^conv3\.", "linear."),
)


def _foamliu(name: str) -> str:
    match = re.match(r"features\.(\d+)(\..+)", name)
    if match and int(match[1]) < len(_FOAMLIU_BLOCKS):
        return _FOAMLIU_BLOCKS[int(match[1])] + _foamliu_inner(match[2])
    return _foamliu_head(name)


def mobilefacenet_from(tensors: Tensors, act: str, stem_act: str) -> nn.Module:
    """The variant that our names and shapes describe; ``act`` where no slopes are stored."""
    width = tensors["stem.conv.weight"].shape[0]
    stages = [_count(tensors, rf"stage{n}\.(\d+)\.") for n in (1, 2, 3)]
    stem_blocks = _count(tensors, r"stem_dw\.(\d+)\.")
    slopes = "stem.act.weight" in tensors
    groups = 1
    if not stem_blocks:
        groups = width // tensors["stem_dw.conv.weight"].shape[1]
    return MobileFaceNet(
        MobileFaceNetConfig(
            embedding_size=tensors["linear.weight"].shape[0],
            width=width,
            inner=(
                tensors["down1.expand.conv.weight"].shape[0],
                tensors["down2.expand.conv.weight"].shape[0],
                tensors["stage3.0.expand.conv.weight"].shape[0],
            ),
            blocks=(stem_blocks, stages[0], stages[1], stages[2]),
            stem_groups=groups,
            stem_pointwise="stem_pw.conv.weight" in tensors,
            act="prelu" if slopes else act,
            stem_act="prelu" if slopes else stem_act,
            linear_bias="linear.bias" in tensors,
        )
    )


def _same(name: str) -> str:
    return name


DIALECTS: tuple[Dialect, ...] = (
    Dialect("arcface_torch iresnet", "layer1.0.prelu.weight", _same, _iresnet),
    Dialect(
        "AdaFace / CVLFace IR",
        "body.0.res_layer.1.weight",
        _ir_name,
        _ir,
        "adaface",
        (("net.", "insightface"),),  # CVLFace's networks take RGB
    ),
    Dialect(
        "arcface_torch mbf",
        "conv_sep.layers.0.weight",
        _mbf_name,
        lambda t: mobilefacenet_from(t, "prelu", "prelu"),
    ),
    Dialect(
        "InsightFace_Pytorch / face.evoLVe / QuantFace MobileFaceNet",
        "conv_6_sep.conv.weight",
        _evolve,
        lambda t: mobilefacenet_from(t, "prelu", "prelu"),
    ),
    Dialect(
        "foamliu MobileFaceNet",
        "gdconv.depthwise.weight",
        _foamliu,
        lambda t: mobilefacenet_from(t, "relu6", "relu"),
        "imagenet",
    ),
    Dialect(
        "efquantface MobileFaceNet",
        "stage1.0.expand.conv.weight",
        _same,
        lambda t: mobilefacenet_from(t, "relu6", "relu6"),
    ),
    Dialect(
        "efquantface MobileNetV2",
        "blocks.16.expand.conv.weight",
        _same,
        lambda t: MobileNetV2(t["linear.weight"].shape[0]),
    ),
    Dialect(
        "efquantface dlib ResNet",
        "blocks.13.conv1.conv.weight",
        _same,
        lambda t: DlibResNet(t["linear.weight"].shape[0]),
        size=150,
    ),
    Dialect("EdgeFace", "stages.0.blocks.0.conv_dw.weight", edgeface_name, edgeface_from),
)
