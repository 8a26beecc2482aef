"""Aligns photos to crops, and checks that crops are aligned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from efquantface.contract import FaceContract
from efquantface.data.detect import Detector, Face, detect, detector_available
from efquantface.data.faces import FaceSet, align_command
from efquantface.data.images import UnreadableImage, read_image, write_image
from efquantface.data.source import find_images
from efquantface.data.template import TEMPLATES, Template, template, warp
from efquantface.errors import CropError, RunError
from efquantface.files import write_bytes, write_text
from efquantface.interfaces import Progress

_LISTS = ("*pair*.txt", "*pair*.csv", "*.mat", "Protocol/**/*.txt", "**/txts/*/*_pairs.txt")
_SAMPLE = 200  # crops looked at by the check
OFF = 0.20  # mean landmark distance from the template, in distances between the eyes
_ALLOWED = 0.25  # share of off crops that noisy detections alone may give


@dataclass
class AlignReport:
    """What became of the photos.

    Attributes:
        written, existing: crops written, and crops that were there.
        several, none: names of photos with several faces, and without one.
        unreadable: (name, reason) of photos that cannot be read.
    """

    written: int = 0
    existing: int = 0
    several: list[str] = field(default_factory=list)
    none: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One tab-separated line per photo without a face, with several, or unreadable."""
        return (
            [f"none\t{name}" for name in self.none]
            + [f"several\t{name}" for name in self.several]
            + [f"unreadable\t{name}\t{why}" for name, why in self.unreadable]
        )


def align_folder(
    photos: Path,
    output: Path,
    template_name: str,
    *,
    pick: str = "largest",
    detector: Detector | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> AlignReport:
    """Align every photo below ``photos`` into the same folders below ``output``.

    A crop that is there is kept. So after a stop the same call goes on where it was. Photos without a
    face, with several, and unreadable ones are listed in ``output/align_report.tsv``.

    Args:
        photos, output: folders.
        template_name: one of :data:`~efquantface.data.template.TEMPLATES`.
        pick: ``largest`` or ``central`` face where there are several.
        detector: finds faces; libfacedetection where None.
        workers: threads; None leaves the number to Python.
        progress: called with (done, total).

    Raises:
        DataError: no photos, or an unknown template.
        RunError: ``output`` lies inside ``photos``.
        RuntimeMissingError: the detector is not installed.
    """
    wanted = template(template_name)
    if output.resolve().is_relative_to(photos.resolve()):
        raise RunError(f"{output}: lies inside {photos}; its crops would be aligned again")
    paths = find_images(photos)
    report = AlignReport()
    found_by = detector or detect

    def work(path: Path) -> tuple[str, str]:
        name = path.relative_to(photos)
        target = output / name.with_suffix(".png" if path.suffix.lower() == ".png" else ".jpg")
        if target.is_file():
            return "existing", str(name)
        try:
            image = read_image(path)
        except UnreadableImage as error:
            return f"unreadable {error}", str(name)
        if min(image.shape[:2]) < 16:
            return "none", str(name)
        faces = found_by(image)
        if not faces:
            return "none", str(name)
        crop = warp(image, _pick(faces, image, pick).landmarks, wanted)
        write_image(target, crop)
        return ("several" if len(faces) > 1 else "written"), str(name)

    with ThreadPoolExecutor(workers) as pool:
        for index, (outcome, name) in enumerate(pool.map(work, paths)):
            if outcome == "existing":
                report.existing += 1
            elif outcome == "none":
                report.none.append(name)
            elif outcome.startswith("unreadable "):
                report.unreadable.append((name, outcome.removeprefix("unreadable ")))
            else:
                report.written += 1
                if outcome == "several":
                    report.several.append(name)
            if progress:
                progress(index + 1, len(paths))
    _copy_lists(photos, output)
    write_text(output / "align_report.tsv", "".join(f"{line}\n" for line in report.lines()))
    return report


def _copy_lists(photos: Path, output: Path) -> None:
    """Copy pair lists and protocols, so that the crops are an evaluation set, too."""
    for pattern in _LISTS:
        for path in photos.glob(pattern):
            target = output / path.relative_to(photos)
            write_bytes(target, path.read_bytes())


def _pick(faces: list[Face], image: npt.NDArray[np.uint8], rule: str) -> Face:
    if rule == "largest":
        return max(faces, key=lambda face: face.area)
    centre = np.array([image.shape[1], image.shape[0]]) / 2
    return min(
        faces,
        key=lambda face: float(
            np.hypot(*(np.array(face.box[:2]) + np.array(face.box[2:]) / 2 - centre))
        ),
    )


def landmark_error(crop: npt.NDArray[np.uint8], wanted: Template) -> float | None:
    """Mean distance of a crop's landmarks from the template, in distances between the eyes.

    None where no face is found (drawn, synthetic or very tight faces).
    """
    border = crop.shape[0] // 2
    padded = cv2.copyMakeBorder(crop, *(border,) * 4, cv2.BORDER_REPLICATE)
    faces = detect(np.asarray(padded, np.uint8))
    if not faces:
        return None
    points = faces[0].landmarks - border
    target = wanted.array()
    eyes = float(np.hypot(*(target[1] - target[0])))
    return float(np.hypot(*(points - target).T).mean()) / eyes


def check_alignment(faces: FaceSet, contract: FaceContract, seed: int = 0) -> str:
    """Compare the landmarks of a sample of crops with the contract's template.

    Returns a sentence for the log.

    Raises:
        CropError: more than a quarter of the faces found miss the template.
    """
    if contract.template not in TEMPLATES:
        return "alignment not checked: the contract names no template"
    if not detector_available():
        return "alignment not checked: no detector here (pip install 'efquantface[align]')"
    wanted = template(contract.template)
    if (contract.height, contract.width) != (wanted.size, wanted.size):
        return f"alignment not checked: {contract.template} is not {contract.width} pixels wide"
    rng = np.random.default_rng([seed, 11])
    index = rng.permutation(len(faces))[:_SAMPLE]
    with ThreadPoolExecutor() as pool:
        errors = [
            e for e in pool.map(lambda i: landmark_error(faces.images[i], wanted), index) if e
        ]
    if len(errors) < min(20, len(index) // 4 + 1):
        return f"alignment not checked: faces found in {len(errors)} of {len(index)} crops only"
    off = sum(error > OFF for error in errors) / len(errors)
    if off > _ALLOWED:
        raise CropError(
            f"{faces.source}: {off:.0%} of {len(errors)} crops looked at are not aligned to "
            f"{contract.template} (median landmark distance {np.median(errors):.2f} eye "
            f"distances). Align the photos with: {align_command(faces.source, contract.template)}   "
            "or, if you know better, add --no-check-alignment"
        )
    return f"alignment checked on {len(errors)} crops: {off:.0%} miss {contract.template}"
