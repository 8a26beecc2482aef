"""The known dialects of checkpoints, each with its backbone.

A dialect knows a tensor's name that only its checkpoints have. What stands in front of this name is the
prefix of a wrapper (``module.``, ``model.``, ``backbone.``). A dialect renames tensors to our backbones'
names and reads sizes from their shapes.
"""

from __future__ import annotations

from efquantface.backbones.dlib import DlibResNet
from efquantface.backbones.edgeface import edgeface_from, edgeface_name
from efquantface.backbones.ghostfacenet import ghostfacenet_from
from efquantface.backbones.inception_resnet import inception_resnet_from
from efquantface.backbones.lightcnn import lightcnn_from, lightcnn_tensors
from efquantface.backbones.mobilenetv2 import MobileNetV2
from efquantface.backbones.vit import vit_from, vit_name
from efquantface.importers.iresnet_names import (
    five_unit_name,
    ir,
    ir_name,
    iresnet,
    renumbered,
)
from efquantface.importers.mobilefacenet_names import (
    evolve_name,
    foamliu_name,
    mbf_name,
    mobilefacenet_from,
)
from efquantface.importers.naming import Dialect, same_name

_MAGFACE = ("unit-bgr", "insightface")  # pixels are BGR / 255

DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "arcface_torch / MagFace iresnet",
        "layer1.0.prelu.weight",
        same_name,
        iresnet,
        ("insightface", "unit-bgr"),
        (("features.module.", _MAGFACE), ("features.", _MAGFACE)),
    ),
    Dialect(
        "AdaFace / CVLFace / TFace IR",
        "body.0.res_layer.5.running_mean",
        ir_name,
        ir,
        ("adaface", "insightface"),
        (("net.", ("insightface",)),),  # CVLFace's networks take RGB
        prepare=renumbered,
    ),
    Dialect(
        "InsightFace_Pytorch / face.evoLVe / CurricularFace IR",
        "body.0.res_layer.4.running_mean",
        five_unit_name,
        ir,
        ("insightface", "adaface"),
        prepare=renumbered,
    ),
    Dialect(
        "arcface_torch mbf",
        "conv_sep.layers.0.weight",
        mbf_name,
        lambda t: mobilefacenet_from(t, "prelu", "prelu"),
    ),
    Dialect(
        "InsightFace_Pytorch / face.evoLVe / QuantFace MobileFaceNet",
        "conv_6_sep.conv.weight",
        evolve_name,
        lambda t: mobilefacenet_from(t, "prelu", "prelu"),
    ),
    Dialect(
        "foamliu MobileFaceNet",
        "gdconv.depthwise.weight",
        foamliu_name,
        lambda t: mobilefacenet_from(t, "relu6", "relu"),
        ("imagenet",),
    ),
    Dialect(
        "efquantface MobileFaceNet",
        "stage1.0.expand.conv.weight",
        same_name,
        lambda t: mobilefacenet_from(t, "relu6", "relu6"),
    ),
    Dialect(
        "efquantface MobileNetV2",
        "blocks.16.expand.conv.weight",
        same_name,
        lambda t: MobileNetV2(t["linear.weight"].shape[0]),
    ),
    Dialect(
        "efquantface dlib ResNet",
        "blocks.13.conv1.conv.weight",
        same_name,
        lambda t: DlibResNet(t["linear.weight"].shape[0]),
        size=150,
        template="dlib150",
    ),
    Dialect(
        "facenet-pytorch InceptionResnetV1",
        "repeat_1.0.branch0.conv.weight",
        same_name,
        inception_resnet_from,
        ("facenet",),
        size=160,
        template="unknown",
        unused=r"logits\.",
    ),
    Dialect(
        "arcface_torch ViT",
        "feature.3.running_mean",
        vit_name,
        vit_from,
        unused="mask_token$",
    ),
    *(
        Dialect(
            "LightCNN",
            signature,
            same_name,
            lightcnn_from,
            ("unit",),
            size=128,
            template="unknown",
            unused=r"fc2\.",
            prepare=lightcnn_tensors,
        )
        for signature in ("group4.conv_a.filter.weight", "features.2.conv_a.filter.weight")
    ),
    Dialect(
        "GhostFaceNet (ellzaf_ml)",
        "blocks.0.0.ghost1.primary_conv.0.weight",
        same_name,
        ghostfacenet_from,
    ),
    Dialect("EdgeFace", "stages.0.blocks.0.conv_dw.weight", edgeface_name, edgeface_from),
)
