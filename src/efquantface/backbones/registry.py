"""The backbones by their usual names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from efquantface.backbones.dlib import DlibResNet
from efquantface.backbones.edgeface import EdgeFace, EdgeFaceConfig
from efquantface.backbones.iresnet import IResNet
from efquantface.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetConfig
from efquantface.backbones.mobilenetv2 import MobileNetV2
from efquantface.contract import FaceContract


@dataclass(frozen=True)
class Backbone:
    """An entry of the registry.

    Attributes:
        about: one line for users.
        build: gives the backbone with random weights.
        contract: the contract with which it is usually trained.
    """

    about: str
    build: Callable[[], nn.Module]
    contract: FaceContract


def _contract(
    embedding_size: int = 512, size: int = 112, preprocess: str = "insightface"
) -> FaceContract:
    template = "arcface112" if size == 112 else "dlib150"
    plain = FaceContract(size, size, embedding_size, template=template)
    return plain.with_preprocess(preprocess)


def _iresnet(depth: int) -> Callable[[], nn.Module]:
    return lambda: IResNet(depth)


def _mobilefacenet(config: MobileFaceNetConfig) -> Callable[[], nn.Module]:
    return lambda: MobileFaceNet(config)


_MBF = MobileFaceNetConfig(width=128, inner=(128, 256, 256), blocks=(0, 4, 6, 2), stem_groups=64)
_MBF_LARGE = MobileFaceNetConfig(width=256, inner=(128, 256, 256), blocks=(2, 8, 12, 4))
_PLAIN = MobileFaceNetConfig(embedding_size=128)
_RELU6 = MobileFaceNetConfig(
    embedding_size=128, act="relu6", stem_act="relu", stem_pointwise=True, linear_bias=True
)

BACKBONES: dict[str, Backbone] = {
    **{
        f"iresnet{depth}": Backbone(f"IResNet-{depth} (ArcFace)", _iresnet(depth), _contract())
        for depth in (18, 34, 50, 100)
    },
    "iresnet18-se": Backbone(
        "IResNet-18 with squeeze-and-excitation", lambda: IResNet(18, se=True), _contract()
    ),
    "adaface-ir18": Backbone(
        "IR-18 (AdaFace, CVLFace)",
        lambda: IResNet(18, pooled_shortcut=True),
        _contract(preprocess="adaface"),
    ),
    "mbf": Backbone("MobileFaceNet of arcface_torch", _mobilefacenet(_MBF), _contract()),
    "mbf-large": Backbone(
        "large MobileFaceNet of arcface_torch", _mobilefacenet(_MBF_LARGE), _contract()
    ),
    "mobilefacenet": Backbone(
        "MobileFaceNet as published, PReLU", _mobilefacenet(_PLAIN), _contract(128)
    ),
    "mobilefacenet-relu6": Backbone(
        "MobileFaceNet with ReLU6 (foamliu)",
        _mobilefacenet(_RELU6),
        _contract(128, preprocess="imagenet"),
    ),
    "mobilenetv2": Backbone("MobileNetV2 with GDConv", lambda: MobileNetV2(), _contract()),
    "dlib-resnet": Backbone(
        "dlib's ResNet, 29 convolutions", lambda: DlibResNet(), _contract(128, 150)
    ),
    "edgeface-xs": Backbone(
        "EdgeFace-XS: convolution and attention", lambda: EdgeFace(EdgeFaceConfig()), _contract()
    ),
    "edgeface-xs-gamma-06": Backbone(
        "EdgeFace-XS with low-rank linear layers",
        lambda: EdgeFace(EdgeFaceConfig(rank=0.6)),
        _contract(),
    ),
}
