"""Alignment of folders, and the check that crops are aligned."""

from __future__ import annotations

from pathlib import Path

import pytest

from efquantface.contract import FaceContract
from efquantface.data.align import align_folder, check_alignment
from efquantface.data.faces import FaceSet
from efquantface.errors import DataError, RunError


def test_align_lists_what_had_no_face(tmp_path: Path, faces_dir: Path) -> None:
    (faces_dir / "person00/bad.jpg").write_bytes(b"x")
    out = tmp_path / "crops"
    report = align_folder(faces_dir, out, "arcface112")
    assert report.written == 0
    assert len(report.none) == 48
    assert (out / "align_report.tsv").read_text().count("none\t") == 48
    assert "unreadable\tperson00/bad.jpg\tnot an image" in (out / "align_report.tsv").read_text()
    with pytest.raises(RunError, match="lies inside"):
        align_folder(faces_dir, faces_dir / "out", "arcface112")
    with pytest.raises(DataError, match="arcface112"):
        align_folder(faces_dir, out, "round")


def test_alignment_check_says_when_it_cannot(faces: FaceSet, contract: FaceContract) -> None:
    assert "names no template" in check_alignment(faces, contract)
