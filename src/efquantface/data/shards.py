"""Shards of a large set, in files here or at addresses: their names, who does which, their digests."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from efquantface.assets import file_sha256
from efquantface.data.addresses import exists, expand, fetch, folder_of, is_address, read, version
from efquantface.data.containers import CONTAINERS
from efquantface.data.faces import open_source
from efquantface.data.images import SUFFIXES
from efquantface.data.listing import items_of
from efquantface.data.source import FaceSource, NoFaces, numbered
from efquantface.data.texts import decoded
from efquantface.errors import DataError, RecipeError
from efquantface.files import temporary_folder

_LISTS = (".txt", ".lst")
_SHARE = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class Shard:
    """A source of faces that is embedded into one file.

    Attributes:
        source: path or address.
        name: of its output below the output's folder, without ``.npz``.
    """

    source: str
    name: str

    @property
    def output(self) -> str:
        """The file of its embeddings: the name for parquet, otherwise the name with ``.npz`` added."""
        return self.name if self.name.endswith(".parquet") else f"{self.name}.npz"


def shards_of(names: Sequence[str]) -> list[Shard]:
    """Shards, sorted, so that every worker has them in the same order.

    An output has its source's name. Where two sources have one name, the folders above them are added
    until all names differ. A source that is given twice is one shard.

    Args:
        names: paths, addresses, and patterns of them.

    Raises:
        DataError: no name is given, no file fits a pattern, or names in several file systems are the
        same.
    """
    sources = sorted({_plain(name) for name in expand(names)})
    if not sources:
        raise DataError("no shards are named")
    parts = [PurePosixPath(s.partition("://")[2] if is_address(s) else s).parts for s in sources]
    for depth in range(1, max(map(len, parts)) + 1):
        short = ["/".join(p.strip("/") for p in path[-depth:]).strip("/") for path in parts]
        if len(set(short)) == len(short):
            return [Shard(s, n) for s, n in zip(sources, short, strict=True)]
    raise DataError(f"{sources[0]}, ...: one name in several file systems; embed them apart")


def my_share(shards: Sequence[Shard], share: str) -> list[Shard]:
    """Every Nth shard from the Ith on, for worker ``I/N`` with I from 1 to N.

    Raises:
        RecipeError: ``share`` is not of this form.
    """
    number, count = parse_share(share)
    return list(shards[number - 1 :: count])


def parse_share(share: str) -> tuple[int, int]:
    """I and N of ``I/N``.

    Raises:
        RecipeError: ``share`` is not of this form, or I is not from 1 to N.

    Example:
        >>> parse_share("2/8")
        (2, 8)
    """
    found = _SHARE.fullmatch(share)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise RecipeError(f"--shard {share}: give I/N with I from 1 to N, for example 1/4")
    return number, count


@contextmanager
def opened(shard: Shard, follow_links: bool = False) -> Iterator[tuple[FaceSource, str]]:
    """A shard's faces, and a digest of its content; a file at an address is fetched while it is open.

    A file without images is a shard without faces. The digest covers every byte of a container; of
    folders and lists, the names, sizes and times of files.

    Raises:
        DataError: it is not there, or is damaged.
    """
    if not is_address(shard.source):
        path = Path(shard.source)
        source = _source(path, follow_links)
        yield source, _digest(path, source)
        return
    if PurePosixPath(shard.source).suffix.lower() in _LISTS:
        listed = AddressList(shard.source)
        yield listed, hashlib.sha256(listed.text).hexdigest()
        return
    if PurePosixPath(shard.source).suffix.lower() not in CONTAINERS:
        kinds = ", ".join([*CONTAINERS, *_LISTS])
        raise DataError(f"{shard.source}: a shard elsewhere is a file of these kinds: {kinds}")
    with temporary_folder() as folder:
        path = fetch(shard.source, folder)
        index = shard.source[: -len(".rec")] + ".idx"
        if path.suffix.lower() == ".rec" and exists(index):
            fetch(index, folder)
        source = _source(path)
        source.where = shard.source
        yield source, _digest(path, source)


def version_of(shard: Shard) -> str:
    """The file system's note of the version of a shard at an address; empty for local ones and lists."""
    listed = PurePosixPath(shard.source).suffix.lower() in _LISTS
    return version(shard.source) if is_address(shard.source) and not listed else ""


class AddressList(FaceSource):
    """A list file at an address. It names images beside it, or addresses; they are read when needed."""

    def __init__(self, address: str) -> None:
        """Read the list.

        Raises:
            DataError: it is not there, lists nothing, lists a file that is no image, or lists an
            address in
                another file system.
        """
        self.where, self.root = address, Path()
        self.text = read(address)
        self.names, labels = items_of(decoded(self.text, address), address)
        if not self.names:
            raise DataError(f"{address}: lists no items")
        wrong = [n for n in self.names if PurePosixPath(n).suffix.lower() not in SUFFIXES]
        if wrong:
            raise DataError(f"{address}: {wrong[0]!r} is no image; a list elsewhere names images")
        place = address.partition("://")[0]
        away = [n for n in self.names if is_address(n) and n.partition("://")[0] != place]
        if away:  # a stranger's list must not choose what else this machine reads
            raise DataError(f"{address}: {away[0]!r} lies in another file system than the list")
        folders = [folder_of(name) for name in self.names]
        unlabelled = [""] * len(folders) if len(set(folders)) == 1 else folders
        self.identities, self.identity_names = numbered(labels or unlabelled)

    def name(self, index: int) -> str:
        return self.names[index]

    def encoded(self, index: int) -> bytes:
        name = self.names[index]
        return read(name if is_address(name) else f"{folder_of(self.where)}/{name}")


class _Nothing(FaceSource):
    """A source without faces."""

    def __init__(self, path: Path) -> None:
        self.where, self.root = str(path), path.parent
        self.identities, self.identity_names = numbered([])

    def name(self, index: int) -> str:
        raise IndexError(index)

    def encoded(self, index: int) -> bytes:
        raise IndexError(index)


def _source(path: Path, follow_links: bool = False) -> FaceSource:
    try:
        return open_source(path, follow_links)
    except NoFaces:
        return _Nothing(path)


def _plain(name: str) -> str:
    """An absolute path, or an address without a trailing slash."""
    if is_address(name):
        return name.rstrip("/")
    return os.path.normpath(Path.cwd() / name)  # links are not followed


def _digest(path: Path, source: FaceSource) -> str:
    """A digest of a shard's content, see :func:`opened`."""
    if path.is_file() and path.suffix.lower() in CONTAINERS:
        index = path.with_suffix(".idx")
        both = [path, index] if path.suffix.lower() == ".rec" and index.is_file() else [path]
        return "-".join(file_sha256(p) for p in both)
    total = hashlib.sha256()
    for item, number in enumerate(np.asarray(source.identities).tolist()):
        name = source.name(item)
        label = source.identity_names[number] if number >= 0 else ""
        total.update(f"{name}\0{label}\0{_stamp(source.root, name)}\0".encode("utf-8", "replace"))
    return total.hexdigest()


def _stamp(root: Path, name: str) -> str:
    """Size and time of the file that an item lies in."""
    file, separator, _ = name.rpartition("#")
    container = separator and Path(file).suffix.lower() in CONTAINERS
    try:
        found = (root / (file if container else name)).stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"
