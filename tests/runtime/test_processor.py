"""Which processors add in 16 bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from efquantface.runtime import processor


@pytest.mark.parametrize(
    ("line", "lacking", "having"),
    [
        ("flags : fpu fma avx avx2", True, False),
        ("flags : avx2 avx512f avx512bw", True, False),
        ("flags : avx2 avx512f avx512_vnni", False, True),
        ("flags : avx2 avx_vnni", False, True),
        ("Features : fp asimd asimddp", False, False),
        ("", False, False),  # not known
    ],
)
def test_processors_with_and_without_vnni(
    line: str, lacking: bool, having: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"model name : X 1\n{line}\n")
    assert processor.lacks_vnni() is lacking
    assert processor.has_vnni() is having
    assert processor.processor() == "X 1"
