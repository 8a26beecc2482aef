"""Where faces come from: a folder, the synthetic generator, or a set in memory."""

from __future__ import annotations

from pathlib import Path

from efquantface import assets
from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, load_faces
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
    console: Console,
) -> FaceSet:
    """Faces as uint8 crops of the contract's size.

    Raises:
        DataError, CropError: the source cannot be used.
        AssetError: the generator of synthetic faces cannot be fetched.
    """
    if isinstance(faces, FaceSet):
        return faces
    if isinstance(faces, str) and faces.startswith(SYNTHETIC):
        return make_synthetic(synthetic_count(faces), contract, seed, console)
    with console.bar("loading faces") as advance:
        return load_faces(Path(faces), contract, resize=resize, progress=advance)


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
    generator = load_generator(assets.fetch(assets.FACE_GENERATOR, say=console.say))
    with console.bar("making synthetic faces") as advance:
        return synthetic_faces(
            generator,
            contract,
            identities=-(-count // _IMAGES_EACH),
            images_each=_IMAGES_EACH,
            seed=seed,
            progress=advance,
        )
