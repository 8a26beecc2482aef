"""``efq compress``: the main job; its flags are the recipe's settings."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from efquantface.cli.flags import ARGUMENTS, SETTINGS, parameters
from efquantface.cli.options import ArcFace, wants_arcface
from efquantface.cli.verb import Json, give, say
from efquantface.errors import FinishedError, RecipeError
from efquantface.recipe import FLAGS, Recipe

_SETTING = "set_"  # prefix of settings: some share names with other parameters or builtins


def compress(
    teacher: Annotated[str | None, typer.Argument(help=SETTINGS["teacher"].description)] = None,
    faces: Annotated[str | None, typer.Argument(help=SETTINGS["faces"].description)] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="the run's folder")] = Path(
        "efq-run"
    ),
    recipe: Annotated[Path | None, typer.Option(help="YAML recipe; flags override it")] = None,
    finetune: Annotated[
        bool | None,
        typer.Option(
            "--finetune/--no-finetune",
            help="train the student, or only set ranges and round (a minute)",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="print what was found, the plan, its time and memory, and stop"
        ),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a stopped run")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an existing run")] = False,
    protocol: ArcFace = None,
    json_: Json = None,
    **given: Any,
) -> None:
    """Compress TEACHER on FACES and prove what it lost.

    The run's folder gets student.onnx, student.safetensors, metrics.json, report.html and the recipe.
    Without --eval, a tenth of the identities is held out and evaluated.
    """
    values = {name.removeprefix(_SETTING): value for name, value in given.items()}
    values |= {"teacher": teacher, "faces": faces, "layers": _layer_bits(values["layers"])}
    if finetune is False:
        values["epochs"] = 0
    if wants_arcface(protocol):
        values["arcface"] = True
    if recipe is None and (teacher is None or faces is None):
        raise RecipeError(
            "TEACHER and FACES are needed, or --recipe FILE; write: efq compress teacher.onnx FACES"
        )
    made = Recipe.create(values, FLAGS) if recipe is None else Recipe.read(recipe, values)
    from efquantface.pipeline.paths import check_inputs

    check_inputs(made)
    from efquantface.extras import wanted_for

    with wanted_for("efq compress"):
        from efquantface.pipeline.compress import compress as run_compress
        from efquantface.pipeline.method import CompressResult
        from efquantface.report.tables import terminal_table

    try:
        done = run_compress(
            made.teacher,
            made.faces,
            output,
            recipe=made,
            force=force,
            resume=resume,
            dry_run=dry_run,
        )
    except FinishedError as finished:  # no failure: a loop that resumes the run has to end
        say(str(finished))
        return
    if not isinstance(done, CompressResult):  # a dry run's plan, printed already
        give([], done.as_dict(), json_)
        return
    give(terminal_table(done.results), done.results.as_dict(), json_)
    if json_ != "-":
        say(f"report: {done.run.report}")


def _layer_bits(given: list[str] | None) -> dict[str, str] | None:
    """Repeated PATTERN=BITS as the recipe's table."""
    if not given:
        return None
    pairs = [text.rpartition("=") for text in given]
    if not all(pattern and bits for pattern, _, bits in pairs):
        raise RecipeError(f"--layer-bits {' '.join(given)}: write PATTERN=w4a8")
    return {pattern: bits for pattern, _, bits in pairs}


def _signature() -> inspect.Signature:
    """The function's own parameters and a flag for each setting; the most used come first."""
    own = inspect.signature(compress, eval_str=True).parameters
    made = parameters(_SETTING)
    first = [p for p in made if p.annotation.__metadata__[0].rich_help_panel is None]
    order = [own[name] for name in (*ARGUMENTS, "output", "recipe")]
    for parameter in first:
        order.append(parameter)
        if parameter.name == _SETTING + "epochs":
            order.append(own["finetune"])
    order += [own[name] for name in ("dry_run", "resume", "force")]
    for parameter in made[len(first) :]:
        order.append(parameter)
        if parameter.name == _SETTING + "arcface":
            order.append(own["protocol"])
    order.append(own["json_"])
    return inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in order])


compress.__signature__ = _signature()  # type: ignore[attr-defined]
