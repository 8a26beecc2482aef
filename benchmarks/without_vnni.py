"""Runs a command at full speed as on an x86 processor of AVX2 alone, without VNNI and AVX-512.

    python benchmarks/without_vnni.py --work runs/masked -m benchmarks run processors --shared ../shared

ONNX Runtime and OpenVINO choose their kernels by what the instruction `cpuid` says. In copies of both
packages `ud2` stands in its place, and a handler of the signal answers as such a processor does.
/proc/cpuinfo says the same, so rows name the masked processor. A real one may have other speeds:
its kernels are the same, its clock and caches are not. Needs cc, objdump and readelf (binutils).
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from runner.groups import MASKED
from runner.places import shown
from runner.script import parser

PACKAGES = ("onnxruntime", "openvino")
CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"
_FLAGS = re.compile(r"\b(avx512\w*|avx_vnni\w*|amx_\w+)\s?")

HANDLER = r"""
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)r[REG_RIP];
    unsigned leaf = r[REG_RAX], sub = r[REG_RCX], a, b, c, d;
    if (at[0] != 0x0f || at[1] != 0x0b) { signal(number, SIG_DFL); return; }
    __cpuid_count(leaf, sub, a, b, c, d);
    if (leaf == 7 && sub == 0) {
        b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
        c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14); /* VBMI, VNNI, BITALG, VPOPCNTDQ */
        d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25); /* AMX, FP16 */
    }
    if (leaf == 7 && sub == 1) {
        a &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23); /* AVX-VNNI, BF16, AMX-FP16, AVX-IFMA */
        d &= ~(1u << 4 | 1u << 5 | 1u << 8 | 1u << 10 | 1u << 19); /* the same for other words, AVX10 */
    }
    r[REG_RAX] = a; r[REG_RBX] = b; r[REG_RCX] = c; r[REG_RDX] = d;
    r[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction action = {0};
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, NULL);
}

int open64(const char *path, int flags, ...) {
    static int (*original)(const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    if (!original) *(void **)&original = dlsym(RTLD_NEXT, "open64");
    const char *other = getenv("MASKED_CPUINFO");
    return original(other && !strcmp(path, "/proc/cpuinfo") ? other : path, flags, mode);
}
"""


def main() -> int:
    """Make what is not there yet, and run the command; its exit status."""
    words = parser(__doc__)
    words.add_argument("--work", type=Path, required=True, help="keeps the copies of both packages")
    args, command = words.parse_known_args()
    work = args.work.resolve()
    versions = "_".join(f"{name}-{importlib.metadata.version(name)}" for name in PACKAGES)
    packages = work / versions
    if not packages.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        made = work / "unfinished"
        shutil.rmtree(made, ignore_errors=True)
        for name in PACKAGES:
            print(f"{name}: {masked(copied(name, made))} times cpuid", flush=True)
        made.rename(packages)
    path = os.pathsep.join(filter(None, (str(packages), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **answers(work), "PYTHONPATH": path}
    return subprocess.run([sys.executable, *command], env=environment).returncode


def answers(work: Path) -> dict[str, str]:
    """The environment of a process in which ``ud2`` answers as the masked processor."""
    source, library, cpuinfo = (work / name for name in ("answer.c", "answer.so", "cpuinfo"))
    source.write_text(HANDLER, encoding="utf-8")
    shown(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"])
    cpuinfo.write_text(described(Path("/proc/cpuinfo").read_text()), encoding="utf-8")
    return {"LD_PRELOAD": str(library), "MASKED_CPUINFO": str(cpuinfo)}


def copied(package: str, folder: Path) -> Path:
    """A copy of an installed package."""
    found = find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(shutil.copytree(Path(found.origin).parent, folder / package))


def masked(folder: Path) -> int:
    """Put ``ud2`` in the place of every ``cpuid`` of a folder's libraries; how many there were."""
    libraries = [p for p in folder.rglob("*.so*") if p.is_file() and not p.is_symlink()]
    return sum(_mask(path) for path in libraries)


def _mask(library: Path) -> int:
    disassemble = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    code = subprocess.check_output(disassemble, text=True)
    headers = subprocess.check_output(["readelf", "-lW", str(library)], text=True)
    segments = [
        (int(m[2], 16), int(m[3], 16), int(m[1], 16))
        for m in re.finditer(r"LOAD\s+0x(\w+) 0x(\w+) 0x\w+ 0x(\w+)", headers)
    ]
    data = bytearray(library.read_bytes())
    found = [int(m[1], 16) for m in re.finditer(r"^\s*(\w+):\s+cpuid\b", code, re.MULTILINE)]
    for address in found:
        (at,) = (address - s + file for s, size, file in segments if s <= address < s + size)
        assert data[at : at + 2] == CPUID
        data[at : at + 2] = UD2
    library.write_bytes(data)
    return len(found)


def described(cpuinfo: str) -> str:
    """What /proc/cpuinfo says of the masked processor."""
    named = re.sub(r"^(model name\s*:.*)$", rf"\1 {MASKED}", cpuinfo, flags=re.MULTILINE)
    return _FLAGS.sub("", named)


if __name__ == "__main__":
    raise SystemExit(main())
