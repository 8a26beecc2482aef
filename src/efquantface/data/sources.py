"""Loads the faces of a run: a folder or file, synthetic faces, or a set in memory."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface import assets
from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, cap, load, open_source
from efquantface.data.large import Once, alone, bytes_of, stream
from efquantface.data.listing import full_name, read_excluded
from efquantface.data.synthetic import load_generator, synthetic_faces
from efquantface.errors import DataError
from efquantface.reading import is_number

SYNTHETIC = "synthetic:"
_IMAGES_EACH = 5


def load_source(
    faces: str | Path | FaceSet,
    contract: FaceContract,
    *,
    resize: bool,
    seed: int,
    limit: int,
    exclude: Path | None = None,
    follow_links: bool = False,
    most_bytes: float = math.inf,
    once: Once = alone,
    console: Console,
) -> FaceSet:
    """Faces as uint8 RGB crops of the contract's size, at most ``limit`` of them.

    Args:
        faces: as :func:`~efquantface.data.faces.open_source` takes them, ``synthetic:COUNT``, or a set.
        contract: gives the size of the crops.
        resize: scale crops of another size.
        seed: of the choice of images, and of synthetic faces.
        limit: at most this many, spread over identities.
        exclude: a list file of images to leave out.
        follow_links: see :func:`~efquantface.data.faces.open_source`.
        most_bytes: crops that take more in memory stay in their files.
        once: as of :func:`~efquantface.data.large.stream`.
        console: says what was left out.

    Raises:
        DataError, CropError: the source cannot be used.
        AssetError: the generator of synthetic faces cannot be fetched.
    """
    if isinstance(faces, FaceSet):
        index = _capped(faces.identities, limit, seed, console)
        return faces if len(index) == len(faces) else faces.subset(index)
    if isinstance(faces, str) and faces.startswith(SYNTHETIC):
        return make_synthetic(synthetic_count(faces), contract, seed, console)
    source = open_source(Path(faces), follow_links)
    index = np.arange(len(source))
    if exclude is not None:
        out = read_excluded(exclude)
        kept = [i for i in index if full_name(source.root, source.name(int(i))) not in out]
        console.log(
            f"left out {len(index) - len(kept):,} of the {len(out):,} images listed in {exclude}"
        )
        index = np.asarray(kept, np.int64)
    index = index[_capped(source.identities[index], limit, seed, console)]
    needed = bytes_of(len(index), contract)
    if needed > most_bytes:
        console.log(
            f"{len(index):,} crops would take {needed / 2**30:.1f} GB: they stay in their files; each "
            "is checked once"
        )
        with console.bar("looking through faces") as advance:
            return stream(source, contract, index, resize=resize, once=once, progress=advance)
    with console.bar("loading faces") as advance:
        return load(source, contract, index, resize=resize, progress=advance)


def _capped(
    identities: npt.NDArray[np.int64], limit: int, seed: int, console: Console
) -> npt.NDArray[np.int64]:
    """Indices of at most ``limit`` images; a cap is logged."""
    count = len(identities)
    if count <= limit:
        return np.arange(count)
    index = cap(identities, limit, seed)
    if (identities < 0).any():
        spread = "drawn at random"
    else:
        people, given = np.unique(identities[index], return_counts=True)
        each = f"{given.min()} to {given.max()} images each"
        spread = f"spread over {len(people):,} of {len(np.unique(identities)):,} identities, {each}"
    console.log(f"capped to {len(index):,} of {count:,} images (--max-images): {spread}")
    return index


def synthetic_count(text: str) -> int:
    """COUNT of ``synthetic:COUNT``.

    Raises:
        DataError: it is not a number of at least 20 images.
    """
    count = text.removeprefix(SYNTHETIC)
    if not is_number(count) or int(count) < 20:
        raise DataError(f"{text!r}: write synthetic:COUNT with at least 20 images")
    return int(count)


def make_synthetic(count: int, contract: FaceContract, seed: int, console: Console) -> FaceSet:
    """About ``count`` synthetic faces, five per identity; other seeds give other people."""
    generator = load_generator(assets.fetch(assets.FACE_GENERATOR, say=console.log))
    with console.bar("making synthetic faces") as advance:
        return synthetic_faces(
            generator,
            contract,
            identities=-(-count // _IMAGES_EACH),
            images_each=_IMAGES_EACH,
            seed=seed,
            progress=advance,
        )
