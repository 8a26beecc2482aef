"""Cells become rows. A row of today's recipe is not computed again."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efquantface import Embedder, compress
from efquantface.data.faces import load_faces
from efquantface.errors import EfqError
from efquantface.export.operators import executed
from efquantface.graph.macs import macs
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.runtime.memory import keep_freed_memory
from efquantface.runtime.processor import kind

from . import rows
from .crops import REFERENCE, cosines, in_integers
from .evaluation import evaluated, opened, place, plain
from .suites import FACES, NETWORKS, QUANTFACE, Cell
from .timing import measured

_QUICK = {"max_images": 300, "epochs": 1}


@dataclass(frozen=True)
class Call:
    """What a call of ``run`` says.

    Attributes:
        shared: holds ``weights`` and ``data``.
        out: runs go there, a folder each.
        faces: the training set, in place of faces6k.
        judge: a second held-out set.
        dlib: crops for dlib's network: training set, LFW.
        quick: few images and one epoch; rows go to ``out``.
    """

    shared: Path
    out: Path
    faces: Path | None = None
    judge: Path | None = None
    dlib: tuple[Path, Path] | None = None
    threads: int | None = None
    device: str = "cpu"
    measure: bool = False
    quick: bool = False

    @property
    def rows(self) -> Path | None:
        """The folder of rows, where it is not that of all."""
        return self.out if self.quick else None

    def trained_on(self, cell: Cell) -> str:
        """The training set: a folder, a list, or ``synthetic:COUNT``."""
        if cell.faces:
            return cell.faces
        if NETWORKS[cell.network].dlib and self.dlib:
            return str(self.dlib[0])
        return str(self.faces or self.shared / "data" / FACES)

    def faces_name(self, cell: Cell) -> str:
        """The training set as rows name it."""
        if cell.faces:
            return cell.faces
        return self.faces.name if self.faces else FACES

    def teacher(self, cell: Cell) -> str:
        """The teacher's file, or the name of a default."""
        return NETWORKS[cell.network].path(self.shared)

    def sets(self, cell: Cell) -> dict[str, str]:
        """The held-out sets."""
        lfw = self.shared / "data" / "lfw112"
        if NETWORKS[cell.network].dlib and self.dlib:
            lfw = self.dlib[1]
        found = {"lfw": f"lfw={lfw}"}
        if self.judge and not NETWORKS[cell.network].dlib:  # its crops have dlib's template
            found["judge"] = place(self.judge)
        return found

    def key(self, cell: Cell) -> dict[str, Any]:
        """The fields by which a row is found again."""
        return {
            "network": cell.network,
            "name": cell.name,
            "seed": cell.seed,
            "faces": self.faces_name(cell),
            **({"kind": kind()} if cell.by_processor else {}),
        }

    def folder(self, cell: Cell) -> Path:
        """A run's folder, of one recipe and one training set."""
        words = (
            cell.full if self.faces_name(cell) == FACES else f"{cell.full} {self.faces_name(cell)}"
        )
        name = re.sub(r"[^A-Za-z0-9.]+", "_", words).strip("_")
        quick = "_quick" if self.quick else ""
        return self.out / cell.suite / f"{name}_{cell.digest or 'peer'}{quick}"


def run_cells(cells: list[Cell], call: Call) -> int:
    """Make or measure every cell's row; how many could not be made."""
    keep_freed_memory()
    failed = 0
    for cell in cells:
        if NETWORKS[cell.network].dlib and not call.dlib:
            print(f"{cell.full}: skipped, --dlib FACES LFW gives its crops")
            continue
        try:
            (measure if call.measure else make)(cell, call)
        except (EfqError, ImportError) as error:
            failed += 1
            print(f"{cell.full}: {error}", flush=True)
    return failed


def finished(cell: Cell, call: Call) -> rows.Row | None:
    """The row of today's recipe that has every set that is asked for."""
    key = rows.key_of(call.key(cell))
    for row in rows.read(cell.suite, call.rows):
        same = rows.key_of(row) == key and row.get("recipe") == cell.digest
        judged = call.judge is None or (row.get("judge") or {}).get("set") == call.judge.name
        if same and (judged or NETWORKS[cell.network].dlib):
            return row
    return None


def make(cell: Cell, call: Call) -> None:
    """Make a cell's row, unless it is there."""
    if finished(cell, call):
        print(f"{cell.full}: there")
        return
    print(f"== {cell.full}", flush=True)
    run = call.folder(cell)
    run.parent.mkdir(parents=True, exist_ok=True)
    preprocess = NETWORKS[cell.network].preprocess
    teacher = load_model(call.teacher(cell), preprocess=preprocess)
    row = {"recipe": cell.digest, **rows.stamp(), **call.key(cell)}
    if call.quick:
        row["quick"] = True  # of fewer images and epochs than the recipe's
    if cell.way == "compress":
        row |= _compressed(cell, call, run, teacher)
    elif cell.way == QUANTFACE:
        row |= _by_quantface(cell, call, teacher)
    else:
        row |= _by_peer(cell, call, run, teacher)
    rows.keep(cell.suite, row, call.rows)
    if cell.by_processor or cell.way not in ("compress", QUANTFACE):
        measure(cell, call)


def measure(cell: Cell, call: Call) -> None:
    """Add the speed of a cell's file to its row; nothing where either is not there."""
    row, file = finished(cell, call), call.folder(cell)
    if cell.way != "compress":
        from .peers import path_of

        file = path_of(cell.way, Path(call.teacher(cell)), file)
    if row is None or not file.exists():
        print(f"{cell.full}: not measured, its row or its file is not there")
        return
    teacher = load_model(call.teacher(cell), preprocess=NETWORKS[cell.network].preprocess)
    rows.keep(cell.suite, {**row, **measured(teacher, file)}, call.rows)
    print(f"{cell.full}: measured", flush=True)


def _compressed(cell: Cell, call: Call, run: Path, teacher: FaceModel) -> rows.Row:
    more: dict[str, Any] = {"threads": call.threads, "device": call.device}
    if call.quick:
        more |= {**_QUICK, "epochs": min(_QUICK["epochs"], cell.recipe().training.epochs)}
    where = call.teacher(cell), call.trained_on(cell)
    recipe = cell.recipe(*where, **more)
    if not (run / "metrics.json").is_file():
        compress(*where, run, recipe=recipe, resume=True)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    history = metrics["history"]
    held_out = dict(history["held_out"])  # by step
    file = run / "student.onnx"
    integer = executed(file)
    student = load_model(run / "student.safetensors")
    size = teacher.contract.height, teacher.contract.width
    session = plain(file, student.contract, call.threads)
    row: rows.Row = {
        "epochs": recipe.training.epochs,
        "batch": recipe.training.batch_size,
        "images": metrics["images_used"],
        "minutes": history["seconds"] / 60,
        "trained_on": history["device"],
        "held_out": [held_out[0], held_out[history["best_step"]]] if held_out else None,
        "mb": file.stat().st_size / 1e6,
        "int8": [integer.integer_convolutions, integer.convolutions],
        "macs": [macs(model.graph, *size) for model in (teacher, student)],
    }
    if not cell.by_processor:
        return row | evaluated(session, teacher, call.sets(cell), call.threads)
    lfw = call.sets(cell)["lfw"].partition("=")[2]
    return row | {"to_integers": _to_integers(student, session, lfw)}


def _to_integers(student: FaceModel, session: Embedder, lfw: str) -> float:
    """Mean cosine of a session's embeddings to the student in integers, on crops of LFW."""
    crops = load_faces(Path(lfw), student.contract).images[:REFERENCE]
    return cosines(session.embed(crops), in_integers(student, crops))[0]


def _by_peer(cell: Cell, call: Call, out: Path, teacher: FaceModel) -> rows.Row:
    from .peers import make_file

    faces = Path(call.trained_on(cell))
    out.mkdir(exist_ok=True)
    file = make_file(cell.way, Path(call.teacher(cell)), teacher.contract, faces, out)
    parts = [file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file]
    integer = executed(file) if file.suffix == ".onnx" else None
    session = opened(file, teacher.contract, call.threads)
    return {
        "mb": sum(part.stat().st_size for part in parts) / 1e6,
        "int8": integer and [integer.integer_convolutions, integer.convolutions],
        **evaluated(session, teacher, call.sets(cell), call.threads),
    }


def _by_quantface(cell: Cell, call: Call, teacher: FaceModel) -> rows.Row:
    from .quantface import trained

    where = call.teacher(cell), call.trained_on(cell)
    recipe = cell.recipe(*where, threads=call.threads, device=call.device)
    student, row = trained(teacher, recipe, Path(call.trained_on(cell)))
    return row | evaluated(Embedder.open(student), teacher, call.sets(cell), call.threads)
