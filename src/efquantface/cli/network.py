"""Verbs about one network or two: evaluate, inspect, benchmark, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from efquantface.cli.flags import whole
from efquantface.cli.options import (
    Arc,
    ArcFace,
    Backend,
    Device,
    Embedding,
    Evals,
    Flip,
    FollowLinks,
    GroupBy,
    Preprocess,
    Resize,
    Size,
    Templates,
    Threads,
    Threshold,
    in_pixels,
    one_of,
    wants_arcface,
)
from efquantface.cli.verb import Json, give, say
from efquantface.errors import DataError
from efquantface.formats.table import FORMATS

_ANY = "any model: ONNX, OpenVINO, LiteRT, checkpoint, run, name"


def evaluate(
    model: Annotated[str, typer.Argument(help=_ANY)],
    eval_: Evals = None,
    against: Annotated[
        str | None, typer.Option(help="a second model (the student) on the same pairs")
    ] = None,
    backend: Backend = "auto",
    preprocess: Preprocess = None,
    size: Size = None,
    flip: Flip = None,
    threshold: Threshold = None,
    arcface: Arc = None,
    protocol: ArcFace = None,
    group_by: GroupBy = None,
    templates: Templates = None,
    resize: Resize = None,
    embedding: Embedding = "float32",
    device: Device = None,
    threads: Threads = None,
    json_: Json = None,
) -> None:
    """Evaluate verification and identification of a model, or of teacher and student side by side.

    --embedding int8 compares a model with itself, its embeddings as int8 codes. With --against, the
    second model's embeddings are codes. Rows on galleries show the loss of float enrolments with int8
    probes, and the reverse.
    """
    from efquantface.evaluation.benchmarks.look import check_eval
    from efquantface.pipeline.paths import check_file, check_model

    if not eval_:
        raise DataError("give at least one --eval NAME=PATH")
    for name in filter(None, (model, against)):
        check_model(name)
    for text in eval_:
        check_eval(text)
    if group_by is not None:
        check_file(group_by, "--group-by")
    from efquantface.report.tables import evaluation_table
    from efquantface.verbs.evaluate import evaluate as run_evaluate

    results = run_evaluate(
        model,
        eval_,
        against=against,
        backend=backend,
        preprocess=preprocess,
        size=in_pixels(size),
        flip=bool(flip),
        threshold=threshold,
        arcface=bool(arcface) or wants_arcface(protocol),
        group_by=group_by,
        templates=templates or "N1D1F1",
        resize=bool(resize),
        embedding=embedding,
        device=device or "cpu",
        threads=threads,
    )
    if embedding != "float32":
        against = f"{against or model} {embedding}"
    give(evaluation_table(results, model, against), [r.as_dict() for r in results], json_)


def inspect(
    model: Annotated[str, typer.Argument(help="any model: ONNX, checkpoint, run, name")],
    faces: Annotated[
        Path | None,
        typer.Option(help="faces on which colour orders and normalizations are tried"),
    ] = None,
    preprocess: Preprocess = None,
    size: Size = None,
    layers: Annotated[bool, typer.Option("--layers", help="list the layers")] = False,
    resize: Resize = None,
    follow_links: FollowLinks = None,
    json_: Json = None,
) -> None:
    """Show what a model holds and expects: operators, parameters, MACs, and its contract with crops."""
    from efquantface.pipeline.paths import check_model, check_source

    check_model(model)
    if faces is not None:
        check_source(faces)
    from efquantface.verbs.inspect import describe_model

    found = describe_model(
        model,
        faces=faces,
        preprocess=preprocess,
        layers=layers,
        resize=bool(resize),
        follow_links=bool(follow_links),
        size=in_pixels(size),
    )
    give(found.lines, found.numbers, json_)


def benchmark(
    model: Annotated[str, typer.Argument(help="the model that others are compared with")],
    against: Annotated[
        list[str] | None, typer.Option(help="another model; may be repeated")
    ] = None,
    backend: Backend = "auto",
    preprocess: Preprocess = None,
    size: Size = None,
    batch: Annotated[list[int] | None, whole("batch sizes  [default: 1 16]")] = None,
    rounds: Annotated[int, whole("rounds in which all models take turns")] = 20,
    device: Device = None,
    threads: Annotated[int, whole("threads of the runtime")] = 1,
    json_: Json = None,
) -> None:
    """Time models in turns, and print milliseconds per call and ratios to the first model."""
    from efquantface.pipeline.paths import check_model

    names = [model, *(against or [])]
    for name in names:
        check_model(name)
    from efquantface.embedding.benchmark import measure
    from efquantface.embedding.embedder import Embedder
    from efquantface.report.tables import speed_table

    models = [
        Embedder.open(
            name,
            backend=backend,
            preprocess=preprocess,
            size=in_pixels(size),
            device=device or "cpu",
            threads=threads,
        )
        for name in names
    ]
    for opened in models:
        for note in opened.notes if opened.open_size else ():
            typer.echo(f"{opened.name}: {note}", err=True)
    speed = measure(
        list(zip(names, models, strict=True)), threads, batches=batch or (1, 16), rounds=rounds
    )
    numbers = {**speed.conditions(), "rounds": rounds, "timings": speed.rows()}
    give(speed_table(speed), numbers, json_)


def export(
    run: Annotated[str, typer.Argument(help="run folder, checkpoint or model to export")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="file or folder  [default: beside the model]"),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="; ".join(f"{form.name}: {form.help}" for form in FORMATS.values()),
            callback=one_of(*FORMATS),
        ),
    ] = "onnx",
    unpacked: Annotated[
        bool,
        typer.Option(
            "--unpacked", help="store weights of few bits as INT8, for runtimes without opset 21"
        ),
    ] = False,
    float_: Annotated[
        bool,
        typer.Option(
            "--float", help="write the float network in the form that runtimes run fastest"
        ),
    ] = False,
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime",
            help="runtime of a site's model: litert, onnxruntime, or auto (the first that can run it)",
            callback=one_of("auto", "litert", "onnxruntime"),
        ),
    ] = "auto",
    full_range: Annotated[
        bool,
        typer.Option(
            "--full-range",
            help="keep 8-bit weights of full range, for processors with VNNI only; by default they "
            "are made portable",
        ),
    ] = False,
    preprocess: Preprocess = None,
    size: Size = None,
    force: Annotated[
        bool, typer.Option("--force", help="replace an existing file or site")
    ] = False,
) -> None:
    """Write a student (or, with --float, any readable network) as a file for a runtime."""
    from efquantface.pipeline.paths import check_model

    check_model(run)
    from efquantface.verbs.export import export_model

    for line in export_model(
        run,
        output,
        format_,
        as_float=float_,
        packed=not unpacked,
        runtime=runtime,
        full_range=full_range,
        preprocess=preprocess,
        size=in_pixels(size),
        force=force,
    ):
        say(line)
