"""Packs of networks (folders or zip files, such as InsightFace's buffalo_l), and their recognizer."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from efquantface.assets import cache_dir, file_sha256
from efquantface.errors import EfqError, ModelFileError, NotRecognizingError
from efquantface.files import write_bytes
from efquantface.stored import check_unpacked

_UNREADABLE = "not a readable ONNX file"


@dataclass(frozen=True)
class Pack:
    """The networks of a pack.

    Attributes:
        recognizer: the one file that recognizes faces.
        described: one line per file that says what it is.
    """

    recognizer: Path
    described: tuple[str, ...]


def is_pack(path: Path) -> bool:
    """Whether a path is a folder with ONNX files or a file that ends in .zip."""
    if path.is_dir():
        return any(True for _ in path.glob("*.onnx")) or any(True for _ in path.glob("*/*.onnx"))
    return path.suffix.lower() == ".zip" and path.is_file()


def open_pack(path: Path) -> Pack:
    """Look at all networks of a pack and take the recognizer.

    The recognizer of a zip file is unpacked into the cache.

    Raises:
        NotRecognizingError: no network recognizes faces, or several do; all are listed.
        ModelFileError: the zip file cannot be read.
    """
    return _open(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _open(path: Path, changed: int) -> Pack:
    """Read once per state of the pack, which has hundreds of megabytes."""
    if path.is_dir():
        files = sorted([*path.glob("*.onnx"), *path.glob("*/*.onnx")])
        looks = {str(f.relative_to(path)): _look(f.read_bytes()) for f in files}
        return Pack(path / _recognizer(path, looks), _lines(looks))
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive, path)
            names = sorted(n for n in archive.namelist() if n.lower().endswith(".onnx"))
            looks = {name: _look(archive.read(name)) for name in names}
            return Pack(_unpacked(archive, _recognizer(path, looks), path), _lines(looks))
    except EfqError:
        raise
    except Exception as error:  # zipfile and its decompressors raise many kinds
        raise ModelFileError(
            f"{path}: not a readable zip file ({error}); download it again"
        ) from None


def _look(data: bytes) -> str:
    import onnx  # heavy; :func:`is_pack` works without it
    from google.protobuf.message import DecodeError

    from efquantface.importers.looks import looks_like

    try:
        return looks_like(onnx.load_model_from_string(data))
    except (DecodeError, ValueError):
        return _UNREADABLE


def _lines(looks: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}: {look}" for name, look in looks.items())


def _recognizer(path: Path, looks: dict[str, str]) -> str:
    from efquantface.importers.looks import RECOGNITION

    found = [name for name, look in looks.items() if look == RECOGNITION]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(_lines(looks)) or "no .onnx file"
    if found:
        way_out = f"name the one to take, for example {path / found[0]}"
        if path.suffix.lower() == ".zip":
            way_out = "unpack it and name the one to take"
        raise NotRecognizingError(f"{path}: holds {len(found)} recognizers ({listed}); {way_out}")
    raise NotRecognizingError(f"{path}: holds no network that recognizes faces ({listed})")


def _unpacked(archive: zipfile.ZipFile, name: str, path: Path) -> Path:
    """The recognizer in the cache, with the files of its name that hold its weights."""
    folder = cache_dir() / "packs" / file_sha256(path)[:16]
    inside, stem = PurePosixPath(name).parent, PurePosixPath(name).stem
    for member in archive.infolist():
        at = PurePosixPath(member.filename)
        if at.parent != inside or not (at.name == at.stem or at.name.startswith(stem)):
            continue
        target = folder / at.name
        if not target.is_file() or target.stat().st_size != member.file_size:
            write_bytes(target, archive.read(member))
    return folder / PurePosixPath(name).name
