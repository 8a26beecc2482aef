"""What `efq data check` finds of faults that were planted into faces6k, and what it lists besides.

    python benchmarks/data_check.py --shared ../shared
    python benchmarks/data_check.py --shared ../shared --dlib FACES   # crops as pruning.py has them

One image in fifty gets the label of another (wrong faces). Then, in a second copy, ten identities are
put into the folder of another and ten are cut in two. What is listed besides is not always an error:
faces6k has wrong labels of its own, which nobody counted.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from commands import command_line
from efquantface.data.checking import check_people
from efquantface.data.faces import load_faces
from efquantface.data.strangers import strangers
from efquantface.distill.bank import TeacherBank
from efquantface.embedding.embedder import Embedder
from efquantface.importers.load import load_model
from efquantface.pipeline.preflight import model_digest
from efquantface.rows import unit
from low_bits import made

TEACHERS = {"y1": None, "mobileface2": None, "foamliu_mobilefacenet": "imagenet"}
_WRONG = 50
_FOLDERS = 10


def wrong_faces(identities: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Identities with one label in fifty exchanged, and which images those are."""
    chosen = rng.choice(len(identities), len(identities) // _WRONG, replace=False)
    moved = identities.copy()
    moved[chosen] = rng.permutation(identities[chosen])
    return moved, np.flatnonzero(moved != identities)


def wrong_folders(
    identities: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, set[int], set[tuple[int, int]]]:
    """Identities with ten merged into others and ten cut in two, and which those are."""
    moved, people = identities.copy(), rng.permutation(np.unique(identities))
    merged, split = set(), set()
    for a, b in people[: 2 * _FOLDERS].reshape(-1, 2):
        moved[moved == a] = b
        merged.add(int(b))
    for new, person in enumerate(people[2 * _FOLDERS : 3 * _FOLDERS], int(identities.max()) + 1):
        images = np.flatnonzero(moved == person)
        moved[images[len(images) // 2 :]] = new
        split.add((int(person), new))
    return moved, merged, split


def row(teacher: str, preprocess: str | None, folder: Path, threads: int | None) -> str:
    model = load_model(teacher, preprocess=preprocess)
    faces = load_faces(folder, model.contract)
    embedder = Embedder.open(model, backend="onnxruntime", threads=threads)
    bank = TeacherBank.build(embedder, faces.images, key=model_digest(model))
    rows, rng = unit(bank.plain), np.random.default_rng(0)
    labels, wrong = wrong_faces(faces.identities, rng)
    first = check_people(rows, labels)
    listed = set(first.outliers)
    hit = len(listed & set(wrong.tolist()))
    labels, merged, split = wrong_folders(faces.identities, rng)
    second = check_people(rows, labels)
    found = [set(second.merged), set(second.split)]
    cells = [
        f"{strangers(rows):.2f}",
        f"{hit} of {len(wrong)}",
        f"{len(listed) - hit}",
        *(
            f"{len(f & planted)} of {len(planted)}, {len(f - planted)} besides"
            for f, planted in zip(found, (merged, split), strict=True)
        ),
        f"{len(first.duplicates)}",
    ]
    return f"| {Path(teacher).stem} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--dlib", type=Path, help="faces6k aligned for dlib's ResNet")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    weights, faces = args.shared / "weights", args.shared / "data" / "faces6k"
    print(
        f"{made()}, `{command_line()}`\n\n"
        "| teacher | strangers share | wrong faces found | listed besides | merged identities "
        "| split identities | near-duplicates |\n|---|---|---|---|---|---|---|"
    )
    began = time.monotonic()
    for name, preprocess in TEACHERS.items():
        print(row(str(weights / f"{name}.onnx"), preprocess, faces, args.threads), flush=True)
    if args.dlib:
        print(row("dlib-resnet", None, args.dlib, args.threads), flush=True)
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
