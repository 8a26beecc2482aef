"""``efq demo``: a run without any data, of a default teacher on synthetic faces."""

from __future__ import annotations

from pathlib import Path

from efquantface import assets
from efquantface.console import Console
from efquantface.data.sources import make_synthetic
from efquantface.evaluation.sets import EvalSet
from efquantface.importers.load import load_model
from efquantface.pipeline.compress import compress
from efquantface.pipeline.method import CompressResult
from efquantface.recipe import Recipe

TITLE = "synthetic faces: shows the pipeline, not real-world accuracy"
_EVAL_IMAGES = 1000
_EVAL_SEED = 1_000_003  # makes people who are not trained on


def run_demo(
    output: Path,
    *,
    images: int,
    epochs: int,
    device: str = "cpu",
    force: bool = False,
    resume: bool = False,
    quiet: bool = False,
) -> CompressResult:
    """Compress dlib's ResNet to W8A8 on synthetic faces, and evaluate it on other people's faces.

    Args:
        output: the run's folder.
        images: how many synthetic faces to train on.
        epochs: passes over them.
        device: ``cpu``, ``cuda`` or ``cuda:1``.
        force, resume: replace an existing run, or go on with it.
        quiet: print nothing.

    Returns:
        As :func:`~efquantface.compress`.

    Raises:
        AssetError: the teacher or the generator of faces cannot be fetched.
        RunError: ``output`` exists, or cannot be written.
    """
    console = Console(quiet)
    for asset in assets.ALL.values():
        assets.fetch(asset, say=console.log)
    teacher = load_model(assets.DLIB_RESNET.name)
    people = make_synthetic(_EVAL_IMAGES, teacher.contract, _EVAL_SEED, console)
    recipe = Recipe.create(
        {
            "teacher": assets.DLIB_RESNET.name,
            "faces": f"synthetic:{images}",
            "epochs": epochs,
            "device": device,
        }
    )
    return compress(
        teacher,
        recipe.faces,
        output,
        eval_sets=[EvalSet("synthetic", people, None, True)],
        recipe=recipe,
        force=force,
        resume=resume,
        quiet=quiet,
        caveat=TITLE,
    )
