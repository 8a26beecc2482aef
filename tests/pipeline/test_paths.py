"""What a user names is there, or the first thing said is that it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from efquantface.errors import DataError, EfqError, ModelFileError, RecipeError
from efquantface.pipeline.paths import (
    check_faces,
    check_file,
    check_folder,
    check_inputs,
    check_model,
    check_model_and_faces,
)
from efquantface.recipe import Recipe


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Names only: files that hold nothing, in the working directory."""
    for name in (
        "net.onnx",
        "net.pth",
        "faces/a/1.jpg",
        "faces/b/1.jpg",
        "run/student.safetensors",
        "train.rec",
        "list.txt",
        "groups.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(**values: Any) -> Recipe:
    return Recipe.create({"teacher": "net.onnx", "faces": "faces", **values})


@pytest.mark.parametrize("teacher", ["net.onnx", "net.pth", "run", "dlib-resnet", "<SmallFaceNet>"])
@pytest.mark.parametrize("faces", ["faces", "train.rec", "list.txt", "synthetic:100", "<FaceSet>"])
def test_what_is_there_passes(there: Path, teacher: str, faces: str) -> None:
    given = {"exclude": "list.txt", "group_by": "groups.csv", "eval": ["people=faces"]}
    check_inputs(recipe(teacher=teacher, faces=faces, **given))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teacher": "nets.onnx"}, r"nets\.onnx: no such file, .*did you mean net\.onnx\?"),
        ({"teacher": "dlib-resnt"}, r"did you mean dlib-resnet\?"),
        ({"teacher": "faces"}, "not a run"),
        ({"faces": "face"}, r"face: no such folder or file; did you mean faces\?"),
        ({"faces": "groups.csv"}, "faces come from"),
        ({"faces": "synthetic:3"}, "at least 20"),
        ({"exclude": "lists.txt"}, r"--exclude lists\.txt: no such file; did you mean list\.txt\?"),
        ({"exclude": "faces"}, "is a folder, a file is wanted"),
        ({"group_by": "gruops.csv"}, "--group-by"),
        ({"eval": ["lfw=gone"]}, "gone: no such folder or file"),
        ({"eval": ["people=faces", "faces/a"]}, "does not say who is who"),
    ],
)
def test_what_is_not_there_is_said(there: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(EfqError, match=message):
        check_inputs(recipe(**values))


@pytest.mark.parametrize("model", ["net.onnx", "net.pth", "run", "dlib-resnet"])
@pytest.mark.parametrize("faces", ["faces", "train.rec", "synthetic:100"])
def test_swapped(there: Path, model: str, faces: str) -> None:
    check_model_and_faces(model, faces)
    with pytest.raises(RecipeError, match=f"model comes first, write {model} {faces}$"):
        check_model_and_faces(faces, model)


def test_one_at_a_time(there: Path) -> None:
    with pytest.raises(ModelFileError):
        check_model("gone")
    with pytest.raises(DataError):
        check_faces("gone")
    with pytest.raises(DataError, match="no such folder"):
        check_folder(Path("gone"))
    with pytest.raises(DataError, match="is a file"):
        check_folder(Path("net.onnx"))
    with pytest.raises(RecipeError, match="--recipe"):
        check_file("gone", "--recipe", RecipeError)
