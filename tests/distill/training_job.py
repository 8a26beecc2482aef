"""One process of a training, as tests start it: alone, or under the variables that torchrun sets."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from conftest import SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.distill import watch
from efquantface.distill.bank import TeacherBank
from efquantface.distill.ranks import Ranks
from efquantface.distill.settings import TrainData, TrainSettings
from efquantface.distill.started import Started
from efquantface.distill.trainer import fine_tune
from efquantface.embedding.embedder import Embedder
from efquantface.importers.load import load_model
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme

SIZE = 32


def main(folder: Path, job: dict) -> None:
    torch.set_num_threads(1)
    for name, value in job.get("patience", {}).items():
        setattr(watch, name, value)
    torch.manual_seed(0)
    contract = FaceContract(height=SIZE, width=SIZE, embedding_size=16, template="unknown")
    teacher = load_model(randomize(SmallFaceNet()), contract=contract)
    faces = make_faces(16, 4, seed=1)
    student = quantize(teacher, Scheme.parse(job.get("bits", "w8a8")))
    set_ranges(student.graph, [torch.from_numpy(contract.pixels(make_faces().images))])
    ranks = Ranks.join(Started.find(None, "cpu"), "cpu")
    with ranks.together():
        embedder = Embedder.open(teacher, backend="torch")
        bank = TeacherBank.build(embedder, faces.images, key="k", cache=False, ranks=ranks)
        index = np.arange(len(faces))
        data = TrainData.of(faces.images, contract, bank, index[:56], index[56:], faces.identities)

        def progress(step: int, total: int, loss: float) -> None:
            with (folder / f"losses{ranks.rank}").open("a") as stream:
                stream.write(f"{step} {loss!r}\n")
            if step == job.get("stop"):
                raise KeyboardInterrupt
            if step == job.get("die") and ranks.rank == job["who"]:
                os.kill(os.getpid(), signal.SIGKILL if job.get("kill") else signal.SIGSTOP)

        fine_tune(
            student,
            data,
            TrainSettings(**job["settings"]),
            folder / "state.pt",
            teacher=teacher,
            ranks=ranks,
            resume=job.get("resume", False),
            progress=progress,
        )
        rows = [bank.plain, bank.mirrored]
        np.save(folder / f"bank{ranks.rank}.npy", np.stack(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
