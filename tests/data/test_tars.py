"""WebDataset's tars, written by the standard library."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from conftest import make_faces
from efquantface.data.faces import open_source
from efquantface.data.inspection import extract_source, inspect_source
from efquantface.data.listing import read_list, write_list
from efquantface.data.source import NoFaces
from efquantface.errors import DataError
from formats import png, write_tar

IMAGES = [png(image) for image in make_faces(3, 2, size=8).images]


@pytest.mark.parametrize(
    ("ending", "label"),
    [
        (".cls", lambda n: f"{n}\n".encode()),
        (".id", lambda n: str(n).encode()),
        (".json", lambda n: json.dumps({"score": 1, "identity": n}).encode()),
    ],
)
def test_samples_by_key(tmp_path: Path, ending: str, label: object) -> None:
    members = []
    for number, image in enumerate(IMAGES):
        members += [(f"./{number:04d}{ending}", label(number // 2)), (f"./{number:04d}.PNG", image)]  # type: ignore[operator]
    source = open_source(write_tar(tmp_path / "a.tar", members))
    assert [source.name(i) for i in range(6)] == [f"a.tar#{i:04d}" for i in range(6)]
    assert [source.identity_names[i] for i in source.identities] == ["0", "0", "1", "1", "2", "2"]
    assert [source.encoded(i) for i in range(6)] == IMAGES
    assert source.read(3).shape == (8, 8, 3)
    assert source.position("0004") == 4
    with pytest.raises(DataError, match="no sample '9'"):
        source.position("9")


def test_folders_are_identities_where_nothing_else_says_who(tmp_path: Path) -> None:
    names = [f"p{i // 2}/{i}.jpg" for i in range(6)]
    source = open_source(write_tar(tmp_path / "a.tar", list(zip(names, IMAGES, strict=True))))
    assert [source.identity_names[i] for i in source.identities] == [n[:2] for n in names]
    flat = open_source(write_tar(tmp_path / "b.tar", [("1.jpg", IMAGES[0])]))
    assert flat.identities.tolist() == [-1]


def test_one_face_a_sample_and_none_lost(tmp_path: Path) -> None:
    members = [
        ("a.mask.png", b"mask"),
        ("a.png", IMAGES[0]),
        ("J.Doe_1.png", IMAGES[1]),
        ("J.Doe_2.png", IMAGES[2]),
        ("b.face.png", IMAGES[3]),
        ("._c.png", b"a Mac's"),
        ("d.json", b"{not json"),
        ("d.png", IMAGES[4]),
        ("e.txt", b"words"),
    ]
    source = open_source(write_tar(tmp_path / "a.tar", members))
    names = [source.name(i).partition("#")[2] for i in range(len(source))]
    assert names == ["a", "J.Doe_1", "J.Doe_2", "b", "d"]
    assert [source.encoded(i) for i in range(5)] == IMAGES[:5]


def test_items_of_lists(tmp_path: Path) -> None:
    names = [f"p{i // 2}/{i}.png" for i in range(6)]
    source = open_source(write_tar(tmp_path / "a.tar", list(zip(names, IMAGES, strict=True))))
    write_list(tmp_path / "few.txt", source, [4, 1], "chosen")
    listed = read_list(tmp_path / "few.txt")
    np.testing.assert_array_equal(listed.read(0), source.read(4))
    assert [listed.identity_names[i] for i in listed.identities] == ["p2", "p0"]
    (tmp_path / "few.txt").write_text("a.tar#p0/9\n")
    with pytest.raises(DataError, match=r"item 1: .*no sample 'p0/9'"):
        read_list(tmp_path / "few.txt")


def test_samples_are_unpacked_each_into_its_own_file(tmp_path: Path) -> None:
    names = ["a/1.png", "b/1.png", "2.png", "02.png", "../../x.png", "c.d.png"]
    source = open_source(write_tar(tmp_path / "a.tar", list(zip(names, IMAGES, strict=True))))
    out = tmp_path / "deep" / "out"
    assert extract_source(source, out) == (6, 0)
    assert extract_source(source, out) == (0, 6)
    assert sorted(p.read_bytes() for p in out.rglob("*.png")) == sorted(IMAGES)
    assert "6 images" in inspect_source(source).lines()[0]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"z\.tar: is no whole tar.*compressed one is unpacked"):
        open_source(write_tar(tmp_path / "z.tar", [("a.png", IMAGES[0])], "w:gz"))
    with pytest.raises(NoFaces, match="holds no images"):
        open_source(write_tar(tmp_path / "n.tar", [("a.txt", b"x")]))
    whole = write_tar(tmp_path / "w.tar", [("a.png", IMAGES[0]), ("b.png", b"x" * 5000)])
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:4000])
    with pytest.raises(DataError, match=r"cut\.tar: "):
        open_source(tmp_path / "cut.tar")
    (tmp_path / "empty.tar").touch()
    with pytest.raises(DataError, match="is empty"):
        open_source(tmp_path / "empty.tar")
    link = tarfile.TarInfo("a.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "l.tar", "w") as archive:
        archive.addfile(link)
    with pytest.raises(NoFaces):
        open_source(tmp_path / "l.tar")
