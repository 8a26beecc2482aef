"""Links in lists: taken where they stay in the folder that a name says, or where they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from efquantface.data.faces import FaceSet, open_source
from efquantface.data.images import write_image
from efquantface.data.listing import read_list
from efquantface.errors import DataError
from program import efq


@pytest.fixture
def place(tmp_path: Path, faces: FaceSet) -> Path:
    """A list's folder with a photo and links; photos elsewhere."""
    root = tmp_path / "set"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for path in (root / "a.png", root / "sub/b.png", tmp_path / "secret/s.png"):
        write_image(path, faces.images[0])
    (root / "inside.png").symlink_to("sub/b.png")
    (root / "outside.png").symlink_to("../secret/s.png")
    (root / "twice.png").symlink_to("outside.png")
    (root / "folder").symlink_to("../secret")
    (tmp_path / "secret/back.png").symlink_to("../set/a.png")
    (tmp_path / "secret/away.png").symlink_to("/etc/hostname")
    return root


def listed(root: Path, *names: str) -> Path:
    (root / "list.txt").write_text("\n".join(names) + "\n")
    return root / "list.txt"


def test_names_that_lead_where_they_say(place: Path) -> None:
    absolute = str(place.parent / "secret/s.png")
    names = ("a.png", "sub/b.png", "inside.png", "../secret/s.png", "../secret/back.png", absolute)
    assert len(read_list(listed(place, *names))) == len(names)
    other = place.parent / "linked"
    other.symlink_to(place)  # a link above the list is the user's own
    assert len(read_list(other / "list.txt")) == len(names)


@pytest.mark.parametrize("name", ["outside.png", "twice.png", "folder/s.png", "sub/../outside.png"])
def test_links_out_of_the_folder_are_asked_for(place: Path, name: str) -> None:
    path = listed(place, "a.png", name)
    with pytest.raises(DataError, match=rf"{name}' is a link to .*secret/s\.png.*--follow-links"):
        open_source(path)
    assert np.array_equal(
        open_source(path, follow_links=True).read(1), open_source(path, True).read(0)
    )


def test_records_through_links(place: Path, rec: Path) -> None:
    (place / "train.rec").symlink_to(rec)
    path = listed(place, "train.rec#1")
    with pytest.raises(DataError, match="--follow-links"):
        open_source(path)
    assert len(open_source(path, follow_links=True)) == 1


def test_the_flag(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = listed(place, "outside.png")
    assert efq("data", "inspect", path) != 0
    assert "--follow-links" in capsys.readouterr().err
    assert efq("data", "inspect", path, "--follow-links") == 0


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a" * 5000 + ".rec#1", "\0.png"])
def test_names_that_no_system_takes(place: Path, name: str) -> None:
    with pytest.raises(DataError):
        read_list(listed(place, name))
