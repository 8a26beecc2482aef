"""OpenMP's threads wait briefly, unless the user says how."""

from __future__ import annotations

import pytest

from efquantface.runtime.waiting import wait_briefly


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "2000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
)
def test_what_a_user_set_stays(
    given: dict[str, str], wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = dict(given)
    monkeypatch.setattr("os.environ", environment)
    wait_briefly()
    assert environment.get("GOMP_SPINCOUNT") == wanted
