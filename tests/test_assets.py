"""Default parts are checked before they are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from efquantface import assets
from efquantface.errors import AssetError


def test_assets_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFQ_CACHE", str(tmp_path))
    with pytest.raises(AssetError, match="efq models fetch"):
        assets.verify(assets.FACE_GENERATOR)
    path = tmp_path / "dcgan-faces" / "weights.tar"
    path.parent.mkdir()
    path.write_bytes(b"tampered")
    with pytest.raises(AssetError, match="sha256"):
        assets.verify(assets.FACE_GENERATOR)
    missing = assets.Asset("x", "no-such-package-efq==0.0.1", "0" * 64, "m", "0" * 64, "", "")
    with pytest.raises(AssetError, match="could not be fetched"):
        assets.fetch(missing)
