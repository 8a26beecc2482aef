"""What opening an embedder leaves alone."""

from __future__ import annotations

from torch import nn

from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.importers.load import load_model


def test_a_model_stays_where_it_is(network: nn.Module, contract: FaceContract) -> None:
    model = load_model(network, contract=contract)
    Embedder.open(model, backend="torch", device="meta")  # any device but the CPU
    assert {p.device.type for p in model.graph.parameters()} == {"cpu"}
