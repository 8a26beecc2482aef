"""Names of MobileFaceNet: arcface_torch, InsightFace_Pytorch, face.evoLVe, QuantFace, foamliu."""

from __future__ import annotations

import re

from torch import nn

from efquantface.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetConfig
from efquantface.importers.naming import Tensors, count, rules

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


def mbf_name(name: str) -> str:
    """arcface_torch's names to ours. Its layers and their layers are numbered."""
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


_evolve_places = rules(
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
_evolve_inner = rules(
    (r"^conv_6_dw\.", "gdc."),
    (r"^(down\d|stage\d\.\d+)\.conv\.", r"\1.expand."),
    (r"^(down\d|stage\d\.\d+)\.conv_dw\.", r"\1.depthwise."),
)


def evolve_name(name: str) -> str:
    """The names of InsightFace_Pytorch, face.evoLVe and QuantFace to ours."""
    renamed = _evolve_inner(_evolve_places(name))
    return re.sub(r"\.prelu\.(\w+)$", r".act.\1", renamed)


_foamliu_inner = rules(
    (r"\.conv\.0\.0\.", ".expand.conv."),
    (r"\.conv\.0\.1\.", ".expand.bn."),
    (r"\.conv\.1\.0\.", ".depthwise.conv."),
    (r"\.conv\.1\.1\.", ".depthwise.bn."),
    (r"\.conv\.2\.", ".project.conv."),
    (r"\.conv\.3\.", ".project.bn."),
)
_foamliu_head = rules(
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


def foamliu_name(name: str) -> str:
    """foamliu's names to ours. Its blocks have one numbering (``features.N``)."""
    match = re.match(r"features\.(\d+)(\..+)", name)
    if match and int(match[1]) < len(_FOAMLIU_BLOCKS):
        return _FOAMLIU_BLOCKS[int(match[1])] + _foamliu_inner(match[2])
    return _foamliu_head(name)


def mobilefacenet_from(tensors: Tensors, act: str, stem_act: str) -> nn.Module:
    """The variant that our names and shapes describe. Activations without stored slopes are ``act``."""
    width = tensors["stem.conv.weight"].shape[0]
    stages = [count(tensors, rf"stage{n}\.(\d+)\.") for n in (1, 2, 3)]
    stem_blocks = count(tensors, r"stem_dw\.(\d+)\.")
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
