"""``efq compress``: the main job's flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from efquantface.cli.options import (
    ArcFace,
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


def compress(
    teacher: Annotated[
        str | None,
        typer.Argument(help="ONNX file, .safetensors checkpoint, run folder or name of a default"),
    ] = None,
    faces: Annotated[
        str | None,
        typer.Argument(
            help="folder of aligned crops (a subfolder an identity, or images without identities), "
            "InsightFace .rec, .parquet or list file; or synthetic:COUNT"
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
    prune: Annotated[
        str | None,
        typer.Option(
            help="share of multiply-accumulates to remove, by removing channels: 0.25, 0.5; or the "
            "time that one crop may take on one thread of this machine: 2.5ms. Alone it gives a "
            "smaller float network; with --bits that network is quantized, too"
        ),
    ] = None,
    importance: Annotated[
        str | None,
        typer.Option(
            help="which channels go: taylor (by what the embedding loses) or magnitude (by their "
            "weights alone)  [default: taylor]"
        ),
    ] = None,
    round_to: Annotated[
        int | None,
        typer.Option(help="channels left are a multiple of it, as kernels like  [default: 8]"),
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
    epochs: Annotated[
        int | None,
        typer.Option(
            help="passes over the faces  [default: 2, and 12 for a network that is pruned]"
        ),
    ] = None,
    finetune: Annotated[
        bool,
        typer.Option("--finetune/--no-finetune", help="or only set ranges and round (seconds)"),
    ] = True,
    batch_size: Annotated[int | None, typer.Option(help="images a training step")] = None,
    memory_gb: Annotated[
        float | None,
        typer.Option(
            help="training stays below it, passing a batch in parts where it must  [default: 8]"
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="learning rate, a share of each channel's largest weight  [default: by the loss before]"
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="cosine, mse of the raw embeddings (QuantFace's), or none"),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="evaluation-based metric loss beside it: none, ours (pairs seen through the "
            "thresholds of each FPR) or ekd (as published)  [default: none]"
        ),
    ] = None,
    metric_weight: Annotated[float | None, typer.Option(help="weight of ours")] = None,
    exclude: Annotated[
        str | None, typer.Option(help="list of images to leave out, from efq data check")
    ] = None,
    max_images: Annotated[int | None, typer.Option(help="larger sets are capped")] = None,
    hold_out: Annotated[float | None, typer.Option(help="share of identities held out")] = None,
    flip: Flip = False,
    threshold: Threshold = None,
    protocol: ArcFace = None,
    group_by: GroupBy = None,
    templates: Templates = None,
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
        bool | None,
        typer.Option("--compile/--no-compile", help="torch.compile  [default: on CUDA only]"),
    ] = None,
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
    from efquantface.pipeline.compress import compress as run_compress
    from efquantface.recipe import Recipe
    from efquantface.report.tables import terminal_table

    given: dict[str, Any] = {
        "teacher": teacher,
        "faces": faces,
        "bits": bits,
        "prune": prune,
        "importance": importance,
        "round_to": round_to,
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
        "memory_gb": memory_gb,
        "loss": loss,
        "metric": metric,
        "metric_weight": metric_weight,
        "exclude": exclude,
        "max_images": max_images,
        "hold_out": hold_out,
        "threshold": threshold,
        "licence": licence,
        "device": device,
        "threads": threads,
        "seed": seed,
        # switches count only where they differ from the default, so that a recipe can set them
        "flip": flip or None,
        "arcface": wants_arcface(protocol) or None,
        "group_by": group_by,
        "templates": templates,
        "resize": resize or None,
        "report_faces": report_faces or None,
        "check_alignment": check_alignment and None,
        "cache": cache and None,
        "benchmark": benchmark_ and None,
        "compile": compile_,
    }
    if recipe is not None:
        made = Recipe.read(recipe, given)
    else:
        if teacher is None or faces is None:
            raise typer.BadParameter("TEACHER and FACES are needed, or --recipe FILE")
        made = Recipe.create(given, "command line")
    done = run_compress(made.teacher, made.faces, output, recipe=made, force=force, resume=resume)
    print_table(terminal_table(done.results))
    typer.echo(f"report: {done.run.report}")


def _layer_bits(given: list[str] | None) -> dict[str, str] | None:
    """PATTERN=BITS, repeated, as the recipe's table."""
    if not given:
        return None
    pairs = [text.rpartition("=") for text in given]
    if not all(pattern and bits for pattern, _, bits in pairs):
        raise typer.BadParameter(f"--layer-bits {given}: write PATTERN=w4a8")
    return {pattern: bits for pattern, _, bits in pairs}
