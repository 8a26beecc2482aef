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


@pytest.mark.parametrize(
    ("line", "machine", "said"),
    [
        ("flags : avx2", "x86_64", "x86 without VNNI: sums of two products in 16 bits"),
        ("flags : avx2 avx_vnni", "x86_64", "x86 with VNNI: sums of 32 bits"),
        ("Features : asimd", "aarch64", "ARM: sums of 32 bits"),
        ("", "arm64", "ARM: sums of 32 bits"),
        ("", "x86_64", "not known"),
    ],
)
def test_what_follows_is_said(
    line: str, machine: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"model name : X 1\n{line}\n")
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    words = processor.integer_sums()
    assert words.startswith(said)
    assert ("efq inspect FILE" in words) == ("32 bits" not in words)
    found = processor.kind()
    assert processor.in_words().startswith(f"X 1, {found}" if found else "X 1")
