"""What alignment costs: LFW's loose crops aligned by `efq align`, against the crops aligned beforehand.

    python benchmarks/alignment.py --shared ../shared --out runs/alignment [--detector yunet.onnx]

Aligns SHARED/data/lfw150 (the photos of LFW's 6,000 pairs, centre 150x150) to the ArcFace template and
verifies two teachers on both sets. Photos in which no face is found drop their pairs; the count is
printed, and the second set is scored on the pairs that are left, too.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from commands import command_line
from efquantface import Embedder
from efquantface.contract import FaceContract
from efquantface.data.align import align_folder
from efquantface.data.detect import YuNet
from efquantface.data.faces import load_faces
from efquantface.evaluation.benchmarks.pair_lists import read_lfw
from efquantface.evaluation.benchmarks.pairing import Row, resolve
from efquantface.evaluation.run import evaluate_set
from efquantface.evaluation.sets import EvalSet
from efquantface.runtime.environment import environment

TEACHERS = {"y1": None, "foamliu_mobilefacenet": "imagenet"}
WANTED = ("accuracy", "TAR@FAR=0.001")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--detector", type=Path)
    args = parser.parse_args()
    data = args.shared / "data"
    detector = None if args.detector is None else YuNet(args.detector)
    began = time.perf_counter()
    crops = args.out / "lfw_aligned"
    report = align_folder(data / "lfw150", crops, "arcface112", pick="central", detector=detector)
    seconds = time.perf_counter() - began
    contract = FaceContract(112, 112, 128)
    names = {n.rpartition(".")[0] for n in load_faces(crops, contract).names}
    listed = data / "lfw112" / "pairs.txt"
    rows: list[Row] = [r for r in read_lfw(listed) if {r.a, r.b} <= names]
    env = environment()
    print(
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, {env['threads']} cores; "
        f"`{command_line()}`; flip off\n\n"
        f"{report.written:,} crops written in {seconds:.0f} s, no face in {len(report.none)}, several "
        f"in {len(report.several)}; {len(rows):,} of 6,000 pairs are left\n"
    )
    print("| | crops | accuracy | TAR@1e-3 |\n|---|---|---|---|")
    for name, preprocess in TEACHERS.items():
        model = Embedder.open(args.shared / "weights" / f"{name}.onnx", preprocess=preprocess)
        for what, folder in (("lfw112", data / "lfw112"), ("aligned here", crops)):
            faces = load_faces(folder, model.contract)
            item = EvalSet(what, faces, resolve(rows, faces, str(listed)), False)
            (result,) = evaluate_set(item, model.embed(faces.images))
            cells = []
            for wanted in WANTED:
                metric = result.metric(wanted)
                low, high = (100 * v for v in metric.teacher_interval or (np.nan, np.nan))
                cells.append(f"{100 * metric.teacher:.2f} [{low:.2f}, {high:.2f}]")
            print(f"| {name} | {what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
