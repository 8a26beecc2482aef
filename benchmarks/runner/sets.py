"""A training set of two sources without LFW's people, and people to judge by who are in neither.

    python -m benchmarks sets --shared ../shared --out SETS

``SETS/union`` holds faces6k and ``extra``, without what ``efq data check`` lists against LFW.
``SETS/judge`` holds 300 identities of ``extra`` and the identities of faces6k that a run holds out; none
of them is in ``union``. Both are folders of links. It takes two minutes.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from efquantface.data.faces import load_faces, split
from efquantface.verbs.curate import check_faces

from .script import teacher_of

JUDGES = 300
HELD_OUT, SEED = 0.1, 0  # the recipe's defaults: these identities judge rows of faces6k, too
CHECKER = "y1"
UNION, JUDGE = "union", "judge"


def make_sets(shared: Path, out: Path) -> dict[str, int]:
    """Make both folders; returns the number of images in each.

    Raises:
        FileExistsError: ``out`` holds one of them already.
    """
    extra, faces6k = shared / "data" / "extra", shared / "data" / "faces6k"
    listed = out / "left-out.txt"
    out.mkdir(parents=True, exist_ok=True)
    check_faces(
        extra,
        listed,
        teacher=str(shared / "weights" / f"{CHECKER}.onnx"),
        against=shared / "data" / "lfw112",
        force=True,
    )
    bad = _images(listed)
    people = {
        folder.name: kept
        for folder in sorted(extra.iterdir())
        if (kept := [image for image in sorted(folder.iterdir()) if image.resolve() not in bad])
    }
    several = [name for name, images in people.items() if len(images) > 1]
    judges = set(random.Random(0).sample(several, JUDGES)) | _held_out(faces6k, shared)
    people |= {folder.name: sorted(folder.iterdir()) for folder in sorted(faces6k.iterdir())}
    counts = Counter({UNION: 0, JUDGE: 0})
    for part in counts:
        (out / part).mkdir()
    for name, images in people.items():
        part = JUDGE if name in judges else UNION
        (out / part / name).mkdir()
        for image in images:
            (out / part / name / image.name).symlink_to(image.resolve())
        counts[part] += len(images)
    return dict(counts)


def _images(listed: Path) -> set[Path]:
    """The images that a list of ``efq data check`` names."""
    lines = listed.read_text(encoding="utf-8").splitlines()
    names = [line.split("\t")[0] for line in lines if not line.startswith("#")]
    return {(listed.parent / name).resolve() for name in names}


def _held_out(faces: Path, shared: Path) -> set[str]:
    """The identities that a run on ``faces`` holds out."""
    loaded = load_faces(faces, teacher_of(CHECKER, shared).contract)
    _, held = split(loaded, HELD_OUT, SEED)
    return {loaded.identity_names[number] for number in set(loaded.identities[held].tolist())}
