"""An assumed preprocessing that separates worse than another is found out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from conftest import make_faces
from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.importers.load import load_model
from efquantface.pipeline.preflight import check_preprocessing, model_digest


class OnlyRedInRange(nn.Module):
    """Separates by the first channel, and only where its input lies in -1..1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 8, stride=8)
        self.clip = nn.Hardtanh(-1, 1)
        self.fc = nn.Linear(16 * 16, 16)
        with torch.no_grad():
            self.conv.weight.normal_(0, 0.02)
            self.conv.weight[:, 1:] = 0
            self.conv.bias.zero_()
            self.fc.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.clip(self.conv(x)), 1))


def test_colour_order_is_found_out() -> None:
    torch.manual_seed(0)
    network = OnlyRedInRange().eval()
    faces = make_faces(identities=40, each=4)
    # people differ in red only; blue is the same noise for everybody
    faces.images[..., 2] = make_faces(identities=160, each=1, seed=9).images[..., 0]
    right = FaceContract(32, 32, 16, template="unknown", source="assumed")
    console = Console(quiet=True)
    assert check_preprocessing(load_model(network, contract=right), faces, console) is None
    wrong = replace(right, color="BGR")
    found = check_preprocessing(load_model(network, contract=wrong), faces, console)
    assert found in ("insightface", "imagenet")
    known = replace(wrong, source="declared")
    assert check_preprocessing(load_model(network, contract=known), faces, console) is None


def test_digest_follows_weights(network: nn.Module, contract: FaceContract) -> None:
    first = model_digest(load_model(network, contract=contract))
    assert first == model_digest(load_model(network, contract=contract))
    with torch.no_grad():
        network.fc.weight[0, 0] += 1  # type: ignore[union-attr, index]
    assert first != model_digest(load_model(network, contract=contract))


def test_a_network_that_recognizes_nobody_is_said(
    network: nn.Module, contract: FaceContract, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.no_grad():
        network.fc.weight.mul_(1e-6)  # type: ignore[union-attr, operator]
        network.bn.running_mean.fill_(-1.0)  # type: ignore[union-attr, operator]
    assumed = replace(contract, source="assumed")
    faces = make_faces(identities=60, each=4)
    faces.images[:] = np.random.default_rng(0).integers(0, 256, faces.images.shape)
    check_preprocessing(load_model(network, contract=assumed), faces, Console())
    assert "under no known preprocessing" in " ".join(capsys.readouterr().out.split())
