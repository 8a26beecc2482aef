"""Subsets and checks as verbs: lists that load, and faces left out by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import make_faces
from efquantface import compress
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet, load_faces
from efquantface.data.images import write_image
from efquantface.data.listing import full_name, read_excluded
from efquantface.errors import DataError, RunError
from efquantface.verbs.curate import write_subset
from program import efq


def test_subset_is_a_list_that_loads(
    tmp_path: Path, faces_dir: Path, faces: FaceSet, contract: FaceContract
) -> None:
    path = tmp_path / "few.txt"
    assert write_subset(faces_dir, path, 12, "identities") == 48
    few = load_faces(path, contract)
    assert len(np.unique(few.identities)) == 12
    with pytest.raises(RunError, match="--force"):
        write_subset(faces_dir, path, 12, "random")
    with pytest.raises(DataError, match="--teacher"):
        write_subset(faces_dir, path, 12, "coverage", force=True)


def test_check_and_exclude_as_verbs(
    tmp_path: Path, network: object, contract: FaceContract, capsys: pytest.CaptureFixture[str]
) -> None:
    from efquantface.export.onnx_writer import write_onnx
    from efquantface.importers.load import load_model

    faces = make_faces(12, 4)
    root = tmp_path / "faces"
    for name, image in zip(faces.names, faces.images, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, image)
    write_image(root / "person03" / "person03_0009.png", faces.images[12])  # a copy
    teacher = tmp_path / "teacher.onnx"
    write_onnx(load_model(network, contract=contract), teacher)  # type: ignore[arg-type]
    out, sheet = tmp_path / "exclude.txt", tmp_path / "sheet.png"
    words = ("data", "check", root, "--teacher", teacher, "-o", out, "--sheet", sheet)
    assert efq(*words, "--against", root) == 0
    assert f"people are in {root}, too" in capsys.readouterr().out
    assert efq(*words) == 2
    assert "--force" in capsys.readouterr().err
    assert efq(*words, "--force") == 0
    listed = read_excluded(out)
    assert full_name(root, "person03/person03_0009.png") in listed
    assert sheet.is_file()
    out.write_text("faces/person03/person03_0009.png\tnear-duplicate\nfaces/person00/nobody.png\n")
    done = compress(
        teacher, root, tmp_path / "run", epochs=0, exclude=str(out), benchmark=False, cache=False,
        quiet=True,
    )  # fmt: skip
    log = done.run.log.read_text()
    assert "left out 1 of the 2 images" in log
    assert "faces: 48 images" in log
