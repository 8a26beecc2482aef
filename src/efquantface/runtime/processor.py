"""Which processor this is, and what its integer kernels can do."""

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


def processor() -> str:
    """The processor's name as the system tells it."""
    for key, value in _cpuinfo():
        if key in ("model name", "Model"):
            return value
    return platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """The instruction sets that matter for integer kernels, of those the processor has."""
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
