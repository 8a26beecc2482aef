"""Every setting has a flag, and what is told by flags comes to the recipe."""

from __future__ import annotations

import inspect
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest

from efquantface.cli.compress import compress
from efquantface.cli.flags import SETTINGS
from efquantface.errors import RecipeError
from efquantface.fields import flag_name
from efquantface.pipeline import compress as pipeline
from efquantface.recipe import Recipe
from efquantface.report.provenance import command
from program import efq

# a flag and value of every setting, written by hand: a new setting needs a row
GIVEN: dict[str, tuple[list[str], Any]] = {
    "bits": (["--bits", "6"], "w6a8"),
    "prune": (["--prune", "0.25"], 0.25),
    "budget": (["--budget", "60%"], "60%"),
    "target": (["--target", "TAR@1e-4 -0.3"], "TAR@1e-4 -0.3"),
    "preprocess": (["--preprocess", "raw"], "raw"),
    "size": (["--size", "112x96"], "112x96"),
    "device": (["--device", "cuda:1"], "cuda:1"),
    "layers": (["--layer-bits", "fc*=4", "--layer-bits", "a=w6a6"], {"fc*": "w4a8", "a": "w6a6"}),
    "wide_ends": (["--wide-ends"], True),
    "wide_depthwise": (["--no-wide-depthwise"], False),
    "full_range": (["--full-range"], True),
    "anyway": (["--anyway"], True),
    "activations": (["--activations", "symmetric"], "symmetric"),
    "rounding": (["--rounding", "nearest"], "nearest"),
    "calibration_images": (["--calibration-images", "64"], 64),
    "importance": (["--importance", "magnitude"], "magnitude"),
    "round_to": (["--round-to", "4"], 4),
    "prune_by": (["--prune-by", "time"], "time"),
    "timings": (["--timings", "list.txt"], "list.txt"),
    "max_images": (["--max-images", "500"], 500),
    "hold_out": (["--hold-out", "0.2"], 0.2),
    "exclude": (["--exclude", "list.txt"], "list.txt"),
    "resize": (["--resize"], True),
    "follow_links": (["--follow-links"], True),
    "check_alignment": (["--no-check-alignment"], False),
    "cache": (["--no-cache"], False),
    "epochs": (["--epochs", "5"], 5),
    "batch_size": (["--batch-size", "16"], 16),
    "lr": (["--lr", "0.01"], 0.01),
    "range_lr": (["--range-lr", "1e-3"], 1e-3),
    "weight_decay": (["--weight-decay", "0.1"], 0.1),
    "clip": (["--clip", "2"], 2.0),
    "loss": (["--loss", "mse"], "mse"),
    "metric": (["--metric", "ekd"], "ekd"),
    "metric_weight": (["--metric-weight", "0.5"], 0.5),
    "images_per_identity": (["--images-per-identity", "3"], 3),
    "layer_weight": (["--layer-weight", "0.3"], 0.3),
    "damping": (["--damping", "0"], 0.0),
    "memory_gb": (["--memory-gb", "4"], 4.0),
    "compile": (["--no-compile"], False),
    "eval": (["--eval", "a=faces", "--eval", "b=faces"], ("a=faces", "b=faces")),
    "flip": (["--flip"], True),
    "threshold": (["--threshold", "-0.1"], -0.1),
    "arcface": (["--arcface"], True),
    "group_by": (["--group-by", "list.txt"], "list.txt"),
    "templates": (["--templates", "n0d1f0"], "N0D1F0"),
    "benchmark": (["--no-benchmark"], False),
    "report_faces": (["--report-faces"], True),
    "licence": (["--licence", "MIT"], "MIT"),
    "threads": (["--threads", "2"], 2),
    "seed": (["--seed", "7"], 7),
    "devices": (["--devices", "2"], 2),
    "faces_gb": (["--faces-gb", "1.5"], 1.5),
}


class Told(Exception):
    """Ends a run where it would begin; holds its recipe."""


@pytest.fixture
def told(tmp_path: Path, faces_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The recipe that words on the command line give."""
    (tmp_path / "t.onnx").write_text("")
    (tmp_path / "list.txt").write_text("")
    monkeypatch.chdir(tmp_path)

    def stops(*_: Any, recipe: Recipe, **__: Any) -> None:
        raise Told(recipe)

    monkeypatch.setattr(pipeline, "compress", stops)

    def give(*words: str) -> Recipe:
        with pytest.raises(Told) as caught:
            efq("compress", *words)
        recipe: Recipe = caught.value.args[0]
        return recipe

    return give


def value(recipe: Recipe, name: str) -> Any:
    for part in (recipe, recipe.training, recipe.evaluation):
        if name in type(part).model_fields:
            return getattr(part, name)
    raise AssertionError(name)


def test_every_setting_is_tested_here() -> None:
    assert {*GIVEN, "teacher", "faces"} == set(SETTINGS)


@pytest.mark.parametrize("name", GIVEN)
def test_a_flag_sets_its_field_and_nothing_else(name: str, told: Any) -> None:
    words, wanted = GIVEN[name]
    plain = told("t.onnx", "faces", "--bits", "w8a8", "--epochs", "2")
    given = told("t.onnx", "faces", "--bits", "w8a8", "--epochs", "2", *words)
    assert value(given, name) == wanted
    assert value(plain, name) != wanted
    others = [n for n in GIVEN if n != name]
    assert [value(given, n) for n in others] == [value(plain, n) for n in others]


@pytest.mark.parametrize("name", GIVEN)
def test_a_report_names_the_command_again(name: str, told: Any) -> None:
    recipe = told("t.onnx", "faces", *GIVEN[name][0])
    words = shlex.split(command(recipe))
    assert words[:4] == ["efq", "compress", "t.onnx", "faces"]
    assert told(*words[2:]) == recipe


def test_flags_win_over_a_recipe_both_ways(told: Any, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "teacher: t.onnx\nfaces: faces\nepochs: 7\ncache: false\nwide_ends: true\nbits: w4a8\n"
        "evaluation: {flip: true, threshold: 0.3}\ntraining: {loss: mse}\n"
    )
    plain = told("--recipe", "r.yaml")
    assert (plain.training.epochs, plain.cache, plain.wide_ends, plain.bits) == (
        7,
        False,
        True,
        "w4a8",
    )
    assert (plain.evaluation.flip, plain.evaluation.threshold, plain.training.loss) == (
        True,
        0.3,
        "mse",
    )
    won = told("--recipe", "r.yaml", "--cache", "--no-wide-ends", "--no-flip", "--no-finetune",
               "--bits", "8", "--loss", "cosine")  # fmt: skip
    assert (won.training.epochs, won.cache, won.wide_ends, won.bits) == (0, True, False, "w8a8")
    assert (won.evaluation.flip, won.evaluation.threshold, won.training.loss) == (
        False,
        0.3,
        "cosine",
    )


def test_conveniences(told: Any) -> None:
    assert told("t.onnx", "faces", "--no-finetune").training.epochs == 0
    assert told("t.onnx", "faces", "--finetune").training.epochs == 2
    assert told("t.onnx", "faces", "--protocol", "arcface").evaluation.arcface
    assert told("t.onnx", "faces", "--prune", "0.5").training.epochs == 12


def test_what_matters_first_stands_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert efq("compress", "--help") == 0
    out = capsys.readouterr().out
    panels = [line.split("─ ")[1].split(" ─")[0] for line in out.splitlines() if "╭─ " in line]
    assert panels == [
        *("Arguments", "Options", "Bits", "Pruning", "Faces", "Fine-tuning", "Evaluation"),
        *("The run", "Output"),
    ]
    first = out[out.index("─ Options") : out.index("─ Bits")]
    for name in ("--bits", "--prune", "--budget", "--epochs", "--eval", "--dry-run", "--resume"):
        assert name in first
    assert "--range-lr" not in first


def test_declared_once() -> None:
    parameters = inspect.signature(compress).parameters
    flags = [
        word for p in parameters.values() for word in (get_args(p.annotation)[1].param_decls or ())
    ] + [get_args(p.annotation)[1].default for p in parameters.values()]
    for name in GIVEN:
        flag = flag_name(Recipe, name)
        assert sum(str(f).split("/")[0] == flag for f in flags) == 1, flag


def test_layer_bits_need_both_halves(tmp_path: Path) -> None:
    from efquantface.cli.compress import _layer_bits

    assert _layer_bits(["a=b=w4a8"]) == {"a=b": "w4a8"}
    for text in ("w4a8", "=w4a8", "a="):
        with pytest.raises(RecipeError, match="PATTERN=w4a8"):
            _layer_bits([text])
