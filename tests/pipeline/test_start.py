"""The untrained student's making."""

from __future__ import annotations

import torch
from torch import nn

from efquantface.backbones.iresnet import IResNet
from efquantface.contract import FaceContract
from efquantface.importers.load import load_model
from efquantface.pipeline.start import _reconstruction_crops, calibration_index


def test_fewer_crops_pass_where_maps_are_large(network: nn.Module, contract: FaceContract) -> None:
    """A map of IResNet's first layers has 64 x 112 x 112 values, 3.2 MB a crop."""
    assert _reconstruction_crops(load_model(network, contract=contract)) == 192
    large = load_model(IResNet(18, 16), contract=FaceContract(112, 112, 16))
    count = _reconstruction_crops(large)
    assert count * 10 * 64 * 112 * 112 * 4 <= 3.2e9
    assert count >= 64


def test_calibration_is_seeded_and_sorted() -> None:
    train = torch.arange(100, 1000).numpy()
    first = calibration_index(train, 0, 50)
    assert (first == sorted(first)).all()
    assert len(set(first.tolist())) == 50
    assert (first == calibration_index(train, 0, 50)).all()
    assert (first != calibration_index(train, 1, 50)).any()
