"""A set of aligned face crops, with identities where folders give them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from efquantface.contract import FaceContract
from efquantface.data.choosing import turns
from efquantface.data.containers import CONTAINERS, open_container
from efquantface.data.images import UnreadableImage
from efquantface.data.joined import JoinedSource
from efquantface.data.listing import read_list
from efquantface.data.recordio import RecSource
from efquantface.data.source import FaceSource, FolderSource
from efquantface.data.streaming import Decode, Decoded, Names
from efquantface.data.views import take
from efquantface.errors import CropError, DataError
from efquantface.interfaces import Progress

_LOOK, _MANY = 50, 500  # of this many images or more, 50 are checked first
FEW = 4  # images of an identity that training uses together
_FIRST = 4  # images that tell the size of all
_SHARDS = (".tar", ".parquet")
_NEARLY_ALL = 0.9  # share of images of one size from which on all count as crops of it


@dataclass
class FaceSet:
    """Crops and what is known about them.

    Attributes:
        images: uint8 RGB (N,H,W,3); for large sets a :class:`StreamedCrops`, indexed like an array.
        names: path relative to the source's root, one per image.
        identities: int64 (N,) number of the identity, -1 for all where the source has none.
        identity_names: names of the identities.
        source: where they came from.
        skipped: (name, reason) of each image that could not be used.
    """

    images: npt.NDArray[np.uint8]
    names: Sequence[str]
    identities: npt.NDArray[np.int64]
    identity_names: list[str]
    source: str
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_identities(self) -> bool:
        """True where the folders name identities."""
        return len(self.identity_names) > 0

    @property
    def people(self) -> int:
        """The number of identities among the images, 0 where the source has none."""
        return len(np.unique(self.identities)) if self.has_identities else 0

    def unlabelled(self) -> FaceSet:
        """The same images without identities."""
        nobody = np.full(len(self), -1, np.int64)
        return replace(self, identities=nobody, identity_names=[])

    def subset(self, index: npt.NDArray[np.int64]) -> FaceSet:
        """The images at ``index``; identities keep their numbers."""
        return FaceSet(
            take(self.images, index),
            self.names.at(index)
            if isinstance(self.names, Names)
            else [self.names[i] for i in index],
            self.identities[index],
            self.identity_names,
            self.source,
            self.skipped,
        )

    def describe(self) -> str:
        """One line for logs and reports."""
        people = f"{self.people:,} identities" if self.has_identities else "no identities"
        lost = f", {len(self.skipped):,} files skipped" if self.skipped else ""
        return f"{len(self):,} images, {people} ({self.source}{lost})"


def open_source(path: Path, follow_links: bool = False) -> FaceSource:
    """Open a folder of crops, or a .rec, .bin, .parquet, .tar or list file (.txt, .lst).

    In a folder that holds a ``train.rec``, that file is opened; in one that holds .tar or .parquet
    files, all of them together. Items of a list file that are links out of their folder need
    ``follow_links``.

    Raises:
        DataError: there is no such folder or file, or it is damaged.
    """
    if path.is_dir():
        record = path / "train.rec"
        if record.is_file():
            return RecSource(record)
        shards = [p for p in sorted(path.iterdir()) if p.suffix.lower() in _SHARDS and p.is_file()]
        if shards:
            return JoinedSource(path, [open_container(shard) for shard in shards])
        return FolderSource(path)
    if path.suffix.lower() in CONTAINERS:
        return open_container(path)
    if path.suffix.lower() in (".txt", ".lst") and path.is_file():
        return read_list(path, follow_links)
    if path.is_file():
        kinds = ", ".join([*CONTAINERS, ".txt"])
        raise DataError(f"{path}: faces come from a folder or a file of these kinds: {kinds}")
    raise DataError(f"{path}: no such folder or file")


def load_faces(
    root: Path,
    contract: FaceContract,
    *,
    resize: bool = False,
    limit: int | None = None,
    follow_links: bool = False,
    progress: Progress | None = None,
) -> FaceSet:
    """Load faces from whatever :func:`open_source` opens.

    Args:
        root: the folder or file.
        contract: gives the size of the crops.
        resize: scale crops of another size instead of refusing them.
        limit: at most this many images, the first ones.
        follow_links: see :func:`open_source`.
        progress: called with (done, total).

    Raises:
        DataError: there is no such folder or file, or no readable image in it.
        CropError: crops of another size, where ``resize`` is not asked for.
    """
    source = open_source(root, follow_links)
    index = np.arange(len(source))[:limit]
    return load(source, contract, index, resize=resize, progress=progress)


def load(
    source: FaceSource,
    contract: FaceContract,
    index: npt.NDArray[np.int64] | None = None,
    *,
    resize: bool = False,
    progress: Progress | None = None,
) -> FaceSet:
    """Decode items of a source (all, or those at ``index``).

    An item that is not a whole image is skipped and listed, never fatal.

    Raises:
        DataError: no item is a whole image.
        CropError: crops of another size, where ``resize`` is not asked for.
    """
    wanted = [int(i) for i in (range(len(source)) if index is None else index)]
    one = decoder(source, contract, resize)
    images, kept, skipped = [], [], []
    wrong: Counter[tuple[int, ...]] = Counter()
    look_first(source, contract, one, wanted)
    with _pool() as pool:
        for done, (item, result) in enumerate(zip(wanted, pool.map(one, wanted), strict=True)):
            if isinstance(result, np.ndarray):
                images.append(result)
                kept.append(item)
            elif isinstance(result, tuple):
                wrong[result[:2]] += 1
                skipped.append((source.name(item), f"is {result[1]}x{result[0]}"))
            else:
                skipped.append((source.name(item), result))
            if progress and (done % 64 == 63 or done + 1 == len(wanted)):
                progress(done + 1, len(wanted))
    check_sizes(source.where, contract, wrong, len(wanted))
    if not images:
        raise none_is_whole(source, len(wanted), skipped)
    return FaceSet(
        np.stack(images),
        [source.name(i) for i in kept],
        source.identities[kept],
        source.identity_names,
        source.where,
        skipped,
    )


def decoder(source: FaceSource, contract: FaceContract, resize: bool) -> Decode:
    """A function that reads an item as a crop of the contract's size."""
    size = (contract.height, contract.width)

    def one(item: int) -> Decoded:
        try:
            image = source.read(item)
        except (UnreadableImage, OSError, DataError) as error:
            return str(error)
        if image.shape[:2] == size:
            return image
        if not resize or min(image.shape[:2]) < 2:
            return image.shape
        return _resized(image, size)

    return one


def look_first(
    source: FaceSource, contract: FaceContract, decode: Decode, wanted: Sequence[int]
) -> None:
    """Check a sample, so that a folder of photos is refused before all of it is read.

    Raises:
        CropError: no item of the sample is a crop.
    """
    if len(wanted) < _MANY:
        return
    looked = [decode(int(i)) for i in wanted[:: len(wanted) // _LOOK]]
    if all(isinstance(result, tuple) for result in looked):
        sizes = Counter(result[:2] for result in looked if isinstance(result, tuple))
        check_sizes(source.where, contract, sizes, len(looked))


def none_is_whole(source: FaceSource, count: int, skipped: list[tuple[str, str]]) -> DataError:
    """The error for a source without a crop."""
    return DataError(
        f"{source.where}: none of {count} items is a whole image, the first: {skipped[0]}"
    )


def crop_size(source: FaceSource) -> tuple[int, int] | None:
    """Height and width of a source's images; None where the first few differ or cannot be read."""
    sizes = set()
    for item in range(min(len(source), _FIRST)):
        try:
            sizes.add(source.read(item).shape[:2])
        except (UnreadableImage, OSError, DataError):
            continue
    (height, width), *more = sizes or [(0, 0)]
    return None if more or not height else (int(height), int(width))


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that drop the waiting work when the body fails or is stopped."""
    pool = ThreadPoolExecutor()
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def check_sizes(
    where: str, contract: FaceContract, wrong: Counter[tuple[int, ...]], total: int
) -> None:
    """Refuse a source with more than one image in fifty of another size.

    Raises:
        CropError: it has more.
    """
    count = sum(wrong.values())
    if count * 50 <= total:
        return
    ((height, width), most), *_ = wrong.most_common(1)
    error = CropError(
        f"{where}: {count:,} of {total:,} images ({count / total:.0%}) are not "
        f"{contract.width}x{contract.height} crops (most often {width}x{height}). Align the photos "
        f"with: {align_command(where, contract.template)}   "
        "or, if they are aligned crops of another size, add --resize"
    )
    error.size = (height, width) if most >= _NEARLY_ALL * total else None
    raise error


def align_command(where: str, template: str) -> str:
    """The command that aligns a source; it unpacks containers first."""
    if Path(where).is_dir():
        return f"efq align {where} -o FACES --template {template}"
    return f"efq data extract {where} -o PHOTOS; efq align PHOTOS -o FACES --template {template}"


def _resized(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def split(
    faces: FaceSet, fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(training, held-out) indices, int64: whole identities are held out, or images if unlabelled.

    Of fewer than four identities, images are held out. At least two identities (or images) stay on each
    side.

    Raises:
        DataError: fewer than four identities or images.
    """
    rng = np.random.default_rng([seed, 10])
    if faces.people >= 4:
        groups = faces.identities
    else:
        groups = np.arange(len(faces), dtype=np.int64)
    unique = np.unique(groups)
    if len(unique) < 4:
        raise DataError(
            f"{faces.source}: {len(unique)} images are too few to hold some out; give at least 4"
        )
    count = min(max(round(len(unique) * fraction), 2), len(unique) - 2)
    held = np.isin(groups, rng.permutation(unique)[:count])
    return np.flatnonzero(~held), np.flatnonzero(held)


def cap(identities: npt.NDArray[np.int64], limit: int, seed: int) -> npt.NDArray[np.int64]:
    """Indices of at most ``limit`` images, ascending, spread over identities.

    More people help more than more images of each. First identities are drawn, as many as can give
    ``FEW`` images each (or all they have). Then they take turns to give one image. Images without
    identities are drawn at random.
    """
    rng = np.random.default_rng([seed, 12])
    order = rng.permutation(len(identities))
    if bool((identities < 0).any()):
        return np.sort(order[:limit])
    people, numbers, sizes = np.unique(identities, return_inverse=True, return_counts=True)
    drawn = rng.permutation(len(people))
    fits = np.cumsum(np.minimum(sizes, FEW)[drawn]) <= limit
    fits[0] = True
    place = np.full(len(people), -1)
    place[drawn[fits]] = np.arange(int(fits.sum()))
    mine = order[place[numbers[order]] >= 0]
    return np.sort(mine[turns(place[numbers[mine]])[:limit]])
