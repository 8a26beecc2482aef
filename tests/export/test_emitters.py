"""Every operator of the vocabulary has an ONNX form; anything else is refused by name."""

from __future__ import annotations

import pytest
from torch import nn

from efquantface.contract import FaceContract
from efquantface.errors import ExportError
from efquantface.export.emitters import EMITTERS, emit
from efquantface.export.values import Writer
from efquantface.quantize.vocabulary import OPERATORS


def test_every_operator_has_a_form() -> None:
    assert set(EMITTERS) == set(OPERATORS.values())


def test_what_is_no_operator_is_named(contract: FaceContract) -> None:
    with pytest.raises(ExportError, match="odd: Tanh"):
        emit(Writer(contract, {}, quantized=False), "odd", nn.Tanh(), [])
