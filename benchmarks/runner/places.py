"""Where benchmarks/client.py runs: this Python, one with other packages, or one under qemu.

An ARM processor has Debian's arm64 packages by debootstrap (its first stage, which runs nothing of ARM),
unpacked, and aarch64 wheels. qemu-aarch64 runs that Python with the folder in front of the system's
paths (-L): neither chroot nor binfmt_misc is needed. The folder holds a /proc/cpuinfo of ARM, since ONNX
Runtime ends with a segmentation fault on that of x86.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.contract import FaceContract

from .crops import Images

CHILD = Path(__file__).parents[1] / "client.py"
MIRROR = "http://deb.debian.org/debian"
SUITE, DEBIAN_PYTHON = "bookworm", "3.11"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
NEWER = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm asimddp"
# name in qemu: part number and features, for /proc/cpuinfo: cpuinfo, of ONNX Runtime, goes by both
PROCESSORS = {
    "cortex-a72": ("0xd08", "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"),
    "neoverse-n1": ("0xd0c", NEWER),
    "max": ("0xd0c", f"{NEWER} i8mm"),
}
CPUINFO = """processor\t: {number}
BogoMIPS\t: 50.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: {part}
CPU revision\t: 1

"""

Codes = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Place:
    """A Python that has a client, with what runs it in front; packages beside its own."""

    command: tuple[str, ...] = (sys.executable,)
    packages: str = ""

    def run(
        self, client: str, file: Path, images: Images, contract: FaceContract
    ) -> dict[str, Any]:
        """What client.py finds: ``embeddings``, or why ``refused``; the first line ``printed``."""
        environment = {"PYTHONPATH": self.packages} if self.packages else {}
        with tempfile.TemporaryDirectory() as folder:
            crops, terms, out = (Path(folder) / n for n in ("crops.npy", "contract.json", "o.npz"))
            np.save(crops, images)
            terms.write_text(contract.to_json(), encoding="utf-8")
            words = [str(CHILD), client, *map(str, (file, crops, terms, out))]
            done = subprocess.run(
                [*self.command, *words],
                env={**os.environ, **environment},
                stderr=subprocess.PIPE,
                text=True,
            )
            if not out.is_file():
                last = (done.stderr.strip() or "no word").splitlines()[-1]
                return {"refused": f"ends with {done.returncode}: {last}"}
            with np.load(out) as found:
                result = {k: v if v.ndim > 1 else v.item() for k, v in found.items()}
        if printed := done.stderr.strip().splitlines():
            result["printed"] = printed[0]
        return result

    def outputs(
        self, client: str, file: Path, images: Images, contract: FaceContract
    ) -> dict[str, npt.NDArray[Any]]:
        """The file's outputs, of which ``embeddings`` is one.

        Raises:
            SystemExit: the client refuses the file.
        """
        found = self.run(client, file, images, contract)
        if "refused" in found:
            raise SystemExit(f"{' '.join(self.command)}: {file}: {found['refused']}")
        return {name: value for name, value in found.items() if name != "printed"}


def made(folder: Path, packages: Sequence[str]) -> Path:
    """The Python of a virtual environment with packages from PyPI, made where it is not there."""
    folder = folder.resolve()
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.is_file():
        shown([sys.executable, "-m", "venv", "--clear", str(folder)])
        shown([str(python), "-m", "pip", "install", "-q", *packages])
        done.touch()
    return python


def on_arm(
    work: Path, wheels: Sequence[str], mirror: str = MIRROR, models: Mapping[str, str] | None = None
) -> Iterator[tuple[str, Place]]:
    """Every ARM processor with wheels of this environment's versions, as long as it is its turn.

    Args:
        work: keeps Debian's packages and the wheels.
        models: what qemu is told in place of a processor's name.
    """
    root = _debian(work.resolve(), mirror)
    folders = [str(_wheel(root, name)) for name in wheels]
    python = str(root / "usr" / "bin" / f"python{DEBIAN_PYTHON}")
    for name, (part, features) in PROCESSORS.items():
        cores = range(os.cpu_count() or 1)
        text = "".join(CPUINFO.format(number=n, part=part, features=features) for n in cores)
        (root / "proc" / "cpuinfo").write_text(text, encoding="utf-8")
        model = (models or {}).get(name, name)
        command = ("qemu-aarch64", "-cpu", model, "-L", str(root), python)
        yield name, Place(command, ":".join(folders))


def _debian(work: Path, mirror: str) -> Path:
    """A folder with Debian's arm64 Python."""
    root, done = work / "root", work / "complete"
    if not done.is_file():
        work.mkdir(parents=True, exist_ok=True)
        stage = ["debootstrap", "--arch", "arm64", "--foreign", "--variant", "minbase"]
        shown([*stage, "--include", "python3", SUITE, str(work / "debootstrap"), mirror])
        for package in sorted((work / "debootstrap" / "var/cache/apt/archives").glob("*.deb")):
            shown(["dpkg-deb", "-x", str(package), str(root)])
        done.touch()
    return root


def _wheel(root: Path, name: str) -> Path:
    """A folder with the aarch64 wheel of this environment's version of a package."""
    wheel = f"{name}=={importlib.metadata.version(name)}"
    folder = root / "wheels" / wheel
    if not folder.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary", ":all:"]
        platforms = [word for p in PLATFORMS for word in ("--platform", p)]
        target = ["--python-version", DEBIAN_PYTHON, "--target", str(folder)]
        shown([*pip, *platforms, *target, wheel])
    return folder


def shown(command: list[str]) -> None:
    """Run a command; what it prints is shown where it fails.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\nended with {done.returncode}")
