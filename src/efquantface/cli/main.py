"""The command line: verbs only. Parse, check, call, print."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from efquantface import stopping
from efquantface.cli import cache, gallery, models, network
from efquantface.cli.compress import compress
from efquantface.cli.data import align, data_app
from efquantface.cli.flags import whole
from efquantface.cli.group import EfqGroup
from efquantface.cli.options import Device
from efquantface.cli.verb import Json, give, say, verb
from efquantface.errors import EfqError, did_you_mean
from efquantface.text import plain

app = typer.Typer(
    name="efq",
    cls=EfqGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Compress a face-recognition network to integers and prove what it lost.

Start with **efq demo** (no data needed). With your own data:

    efq align PHOTOS -o FACES                        photos to aligned crops

    efq compress TEACHER.onnx FACES --eval lfw=DIR   the main job

    efq evaluate TEACHER.onnx --against RUN/student.onnx --eval pairs=PAIRS.csv
""",
)
_BAD_USAGE: Any = typer.BadParameter.__mro__[2]  # click's ClickException, wherever typer keeps it


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
            "--version", callback=_print_version, is_eager=True, help="print the version and exit"
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


verb(
    app,
    "efq compress teacher.onnx FACES --eval lfw=LFW -o RUN",
    "efq compress teacher.onnx FACES --prune 0.25 --bits w8a8 --dry-run",
)(compress)
verb(app, "efq align PHOTOS -o FACES --template arcface112")(align)
app.add_typer(data_app, name="data")


verb(app, "efq evaluate teacher.onnx --against RUN/student.onnx --eval lfw=LFW --json lfw.json")(
    network.evaluate
)
verb(app, "efq inspect backbone.pth --faces FACES")(network.inspect)
verb(
    app,
    "efq embed RUN/student.onnx FACES -o embeddings.npz",
    "efq embed RUN/student.onnx shards/*.tar -o GALLERY --embedding int8 --shard 1/4",
    "efq embed RUN/student.onnx 's3://faces/*.parquet' -o s3://gallery --ray 8",
)(gallery.embed)
verb(
    app,
    "efq compare-gallery OLD.onnx NEW.onnx --sample FACES --threshold 0.4 -o decision.json",
    name="compare-gallery",
)(gallery.compare_gallery)
verb(app, "efq benchmark teacher.onnx --against RUN/student.onnx --batch 1 --batch 16")(
    network.benchmark
)
verb(
    app,
    "efq export RUN --format openvino -o student.xml",
    "efq export RUN --format tflite -o student.tflite",
    "efq export RUN --format tensorrt",
    "efq export teacher.onnx --float -o fast.onnx",
)(network.export)


@verb(app, "efq demo -o efq-demo --images 3000")
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="the run's folder")] = Path(
        "efq-demo"
    ),
    images: Annotated[int, whole("synthetic training images", 20)] = 1500,
    epochs: Annotated[int, whole("passes over them", 0)] = 2,
    device: Device = None,
    force: Annotated[bool, typer.Option("--force", help="replace an existing run")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a stopped run")] = False,
    json_: Json = None,
) -> None:
    """Run the whole pipeline without any data: dlib's ResNet in W8A8 on synthetic faces."""
    from efquantface.extras import wanted_for

    with wanted_for("efq demo"):
        from efquantface.report.tables import terminal_table
        from efquantface.verbs.demo import TITLE, run_demo

    done = run_demo(
        output, images=images, epochs=epochs, device=device or "cpu", force=force, resume=resume
    )
    give(terminal_table(done.results), done.results.as_dict(), json_)
    if json_ != "-":
        say(f"{TITLE}\nreport: {done.run.report}")


app.add_typer(models.models_app, name="models")
app.add_typer(cache.cache_app, name="cache")


@verb(app, "efq env --json env.json")
def env(json_: Json = None) -> None:
    """Show versions, instruction sets, threads, runtimes and providers found on this machine."""
    import json

    from efquantface.runtime.environment import environment

    found = environment()
    give([json.dumps(found, indent=2)], found, json_)


def main() -> None:
    """Run the program and exit. Errors that a user can cause print one line, without a traceback.

    SIGTERM counts as Ctrl-C: training saves its state and can be resumed.
    """
    stopping.listen()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters outside its encoding are escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run()
    except EfqError as error:
        code = _failed(str(error))
    except KeyboardInterrupt:
        code = stopping.CODE
    except MemoryError as error:
        code = _failed(f"out of memory ({error or 'no room'}); fewer or smaller images take less")
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader is gone, as in: efq env | head
            code = 1
        else:
            where = f"{error.filename}: " if error.filename else ""
            code = _failed(f"{where}{error.strerror or error}")
    sys.exit(code)


def _run() -> int:
    """Run the verb; returns the exit code."""
    from efquantface.extras import wanted_for

    try:
        with wanted_for("this verb"):
            code = app(standalone_mode=False)
    except typer.Abort:
        return stopping.CODE
    except _BAD_USAGE as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            say(error.ctx.get_help())
            return 2
        place = getattr(error, "ctx", None)
        hint = f"\nhelp: {place.command_path} -h" if place is not None else ""
        return _failed(f"{_usage(error)}{hint}")
    return code if isinstance(code, int) else 0


def _usage(error: Any) -> str:
    """A usage error in words; for a misspelt option with the closest one."""
    wrong = str(getattr(error, "option_name", ""))
    if type(error).__name__ == "NoSuchOption" and error.ctx is not None:
        known = [name for p in error.ctx.command.params for name in (*p.opts, *p.secondary_opts)]
        close = did_you_mean(wrong.lstrip("-"), [name[2:] for name in known if name[:2] == "--"])
        return f"no option {wrong}{close.replace('mean ', 'mean --')}"
    text = str(error.format_message())
    return text[:1].lower() + text[1:].rstrip(".")


def _failed(text: str) -> int:
    typer.secho(plain(f"error: {text}"), fg="red", err=True)
    return 2
