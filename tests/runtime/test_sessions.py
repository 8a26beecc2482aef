"""What sessions are opened with."""

from __future__ import annotations

import pytest
from torch import nn

from efquantface.contract import FaceContract
from efquantface.export.onnx_writer import to_onnx
from efquantface.loading import load_model
from efquantface.runtime import sessions


@pytest.mark.parametrize(("vnni", "exact"), [(True, "0"), (False, "1")])
def test_exact_sums_are_asked_for_where_they_could_saturate(
    vnni: bool,
    exact: str,
    network: nn.Module,
    contract: FaceContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "has_vnni", lambda: vnni)
    file = to_onnx(load_model(network, contract=contract)).SerializeToString()
    options = sessions.onnxruntime_session(file).get_session_options()
    assert options.get_session_config_entry(sessions.EXACT_OPTION) == exact
