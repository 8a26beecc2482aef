"""What lies at --eval, seen without opening an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from efquantface.errors import DataError
from efquantface.evaluation.benchmarks.look import check_eval, name_and_path


def made(root: Path, *names: str) -> Path:
    """Files that hold nothing: whoever opens one as an image fails."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return root


@pytest.mark.parametrize(
    "names",
    [
        ("a/1.jpg", "b/1.jpg"),
        ("a/deep/1.PNG", "b/deeper/still/1.webp"),
        ("train.rec",),
        ("lfw.bin",),
        ("pairs.txt", "a/1.jpg"),
        ("pairs_CALFW.txt",),
        ("Protocol/Split/x",),
        ("04_FINAL_protocol_30_years.mat",),
        ("txts/African/African_pairs.txt",),
        ("test/txts/African/African_pairs.txt",),
        ("meta/ijbc_face_tid_mid.txt",),
        ("gallery/a/1.jpg", "probe/a/1.jpg"),
    ],
)
def test_what_can_be_evaluated(tmp_path: Path, names: tuple[str, ...]) -> None:
    check_eval(f"set={made(tmp_path, *names)}")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds no images"),
        (("notes.txt", "deep/er/notes.md"), "holds no images"),
        (("1.jpg", "2.jpg"), "does not say who is who"),
        (("a/1.jpg", "empty/x.txt"), "all images are of a"),
    ],
)
def test_wrong_folders(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    made(tmp_path, *names)
    for text in (str(tmp_path), f"set={tmp_path}"):
        with pytest.raises(DataError, match=message):
            check_eval(text)


def test_missing_and_misspelt(tmp_path: Path) -> None:
    made(tmp_path, "lfw112/a/1.jpg", "net.onnx", "face.jpg", "pairs.csv")
    with pytest.raises(DataError, match=r"lfw11: no such .* did you mean lfw112\?"):
        check_eval(f"lfw={tmp_path / 'lfw11'}")
    for name in ("net.onnx", "face.jpg"):
        with pytest.raises(DataError, match="neither"):
            check_eval(str(tmp_path / name))
    check_eval(f"pairs={tmp_path / 'pairs.csv'}")
    with pytest.raises(DataError, match=r"pairs\.txt: no such file"):
        check_eval(f"lfw={tmp_path / 'lfw112'}")
    for text in ("=x", "lfw="):
        with pytest.raises(DataError, match="NAME=PATH"):
            name_and_path(text)
    assert name_and_path("a/lfw.bin") == ("lfw", Path("a/lfw.bin"))
    assert name_and_path("x=a=b") == ("x", Path("a=b"))
