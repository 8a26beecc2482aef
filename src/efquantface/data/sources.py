"""Where faces come from: a folder or file, the synthetic generator, or a set in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from efquantface import assets
from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, cap, load, open_source
from efquantface.data.listing import full_name, read_excluded
from efquantface.data.synthetic import load_generator, synthetic_faces
from efquantface.errors import DataError

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
    console: Console,
) -> FaceSet:
    """Faces as uint8 crops of the contract's size, at most ``limit`` of them (whole identities).

    Raises:
        DataError, CropError: the source cannot be used.
        AssetError: the generator of synthetic faces cannot be fetched.
    """
    if isinstance(faces, FaceSet):
        if len(faces) <= limit:
            return faces
        console.log(f"capped to {limit:,} of {len(faces):,} images (--max-images)")
        return faces.subset(cap(faces.identities, limit, seed))
    if isinstance(faces, str) and faces.startswith(SYNTHETIC):
        return make_synthetic(synthetic_count(faces), contract, seed, console)
    source = open_source(Path(faces))
    index = np.arange(len(source))
    if exclude is not None:
        out = read_excluded(exclude)
        kept = [i for i in index if full_name(source.root, source.name(int(i))) not in out]
        console.log(
            f"left out {len(index) - len(kept):,} of {len(out):,} images that {exclude} lists"
        )
        index = np.asarray(kept, np.int64)
    if len(index) > limit:
        index = index[cap(source.identities[index], limit, seed)]
        console.log(f"capped to {len(index):,} of {len(source):,} images (--max-images)")
    with console.bar("loading faces") as advance:
        return load(source, contract, index, resize=resize, progress=advance)


def synthetic_count(text: str) -> int:
    """COUNT of ``synthetic:COUNT``.

    Raises:
        DataError: it is not a number of at least 20 images.
    """
    count = text.removeprefix(SYNTHETIC)
    if not count.isdigit() or int(count) < 20:
        raise DataError(f"{text!r}: write synthetic:COUNT with at least 20 images")
    return int(count)


def make_synthetic(count: int, contract: FaceContract, seed: int, console: Console) -> FaceSet:
    """About ``count`` synthetic faces, five an identity; other seeds give other people."""
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
