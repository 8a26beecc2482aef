"""The processor, its instruction sets, and how its integer kernels add."""

from __future__ import annotations

import platform
from pathlib import Path

_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
)
_VNNI = ("avx_vnni", "avx512_vnni", "amx_int8")
_ARM_FLAGS = ("asimd", "asimddp", "i8mm", "sve")
WITH_VNNI, WITHOUT_VNNI, ARM = "x86 with VNNI", "x86 without VNNI", "ARM"
_SUMS = {  # how ONNX Runtime's u8 x s8 kernels add there, and the consequence
    WITH_VNNI: "sums of 32 bits, any 8-bit file is right",
    WITHOUT_VNNI: "sums of two products in 16 bits, files that are not portable give other embeddings: "
    "see efq inspect FILE",
    ARM: "sums of 32 bits, any 8-bit file is right",
}


def processor() -> str:
    """The processor's name, as the system gives it."""
    for key, value in _cpuinfo():
        if key in ("model name", "Model"):
            return value
    return platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """The processor's instruction sets that matter for integer kernels."""
    for key, value in _cpuinfo():
        if key in ("flags", "Features"):
            present = set(value.split())
            return [flag for flag in _FLAGS + _ARM_FLAGS if flag in present]
    return []


def _cpuinfo() -> list[tuple[str, str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return [(key.strip(), value.strip()) for key, value in pairs]


def has_vnni() -> bool:
    """Whether this is known to be an x86 processor whose u8 x s8 kernels add in 32 bits."""
    return bool(set(instruction_sets()) & set(_VNNI))


def lacks_vnni() -> bool:
    """Whether this is known to be an x86 processor whose u8 x s8 kernels add in 16 bits."""
    return "avx2" in instruction_sets() and not has_vnni()


def kind() -> str:
    """One of ``WITH_VNNI``, ``WITHOUT_VNNI`` and ``ARM``; empty where it is not known."""
    if has_vnni():
        return WITH_VNNI
    if lacks_vnni():
        return WITHOUT_VNNI
    arm = platform.machine().lower() in ("aarch64", "arm64") or "asimd" in instruction_sets()
    return ARM if arm else ""


def integer_sums() -> str:
    """How this processor adds in 8-bit files, and the consequence, in words."""
    found = kind()
    if not found:
        return "not known: files that are portable are right on any processor, see efq inspect FILE"
    return f"{found}: {_SUMS[found]}"


def named() -> str:
    """The processor's name and its kind."""
    return f"{processor()}, {kind()}" if kind() else processor()


def in_words() -> str:
    """The processor's name, its kind, and its instruction sets."""
    sets = ", ".join(instruction_sets())
    return f"{named()} ({sets})" if sets else named()
