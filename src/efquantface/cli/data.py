"""``efq align`` and ``efq data``: photos, containers and lists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from efquantface.cli.flags import whole
from efquantface.cli.group import EfqGroup
from efquantface.cli.options import FollowLinks, Preprocess, Resize, one_of
from efquantface.cli.verb import Json, give, say, verb
from efquantface.contract import TEMPLATES
from efquantface.data.ways import WAYS

data_app = typer.Typer(
    cls=EfqGroup,
    no_args_is_help=True,
    help="Inspect, unpack, choose from and check folders, .rec, .bin, .parquet, .tar and list files.",
)
_ALIGNED = tuple(name for name in TEMPLATES if name != "unknown")


def align(
    photos: Annotated[Path, typer.Argument(help="folder of photos")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for the crops")],
    template: Annotated[
        str, typer.Option(help=" or ".join(_ALIGNED), callback=one_of(*_ALIGNED))
    ] = "arcface112",
    pick: Annotated[
        str,
        typer.Option(
            help="largest or central face where there are several",
            callback=one_of("largest", "central"),
        ),
    ] = "largest",
    detector: Annotated[
        Path | None, typer.Option(help="a YuNet .onnx in place of the installed detector")
    ] = None,
    workers: Annotated[int | None, whole("threads")] = None,
) -> None:
    """Turn photos into aligned crops. After a stop, the same call goes on where it was.

    Folders keep their names; pair lists and protocol files are copied. So an aligned benchmark is an
    evaluation set. Photos without a face, with several faces, and unreadable ones are listed in
    FACES/align_report.tsv.
    """
    from efquantface.pipeline.paths import check_file, check_folder

    check_folder(photos)
    if detector is not None:
        check_file(str(detector), "--detector")
    from efquantface.console import Console
    from efquantface.data.align import align_folder
    from efquantface.data.detect import YuNet

    console = Console()
    with console.bar("aligning") as advance:
        done = align_folder(
            photos,
            output,
            template,
            pick=pick,
            detector=None if detector is None else YuNet(detector),
            workers=workers,
            progress=advance,
        )
    console.log(
        f"{done.written:,} crops written to {output}, {done.existing:,} were there; "
        f"no face in {len(done.none):,}, several in {len(done.several):,}, "
        f"unreadable {len(done.unreadable):,} (listed in {output / 'align_report.tsv'})"
    )


@verb(data_app, "efq data inspect train.rec", name="inspect")
def inspect(
    faces: Annotated[Path, typer.Argument(help="folder, .rec, .bin, .parquet, .tar or list file")],
    follow_links: FollowLinks = None,
    json_: Json = None,
) -> None:
    """Show what a source of faces holds: images, identities, sizes, and unreadable ones of a sample."""
    from efquantface.pipeline.paths import check_source

    check_source(faces)
    from efquantface.data.faces import open_source
    from efquantface.data.inspection import inspect_source

    found = inspect_source(open_source(faces, bool(follow_links)))
    give(found.lines(), found.as_dict(), json_)


@verb(data_app, "efq data extract train.rec -o FACES --limit 1000", name="extract")
def extract(
    faces: Annotated[Path, typer.Argument(help=".rec, .bin, .parquet, .tar or list file")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for the images")],
    limit: Annotated[int | None, whole("at most this many images, the first ones")] = None,
    follow_links: FollowLinks = None,
) -> None:
    """Unpack images as they are stored, one folder per identity. After a stop, the same call goes on.

    A verification .bin also gives pairs.csv, so that the folder is an evaluation set:
    --eval NAME=FOLDER/pairs.csv
    """
    from efquantface.pipeline.paths import check_source

    check_source(faces)
    from efquantface.console import Console
    from efquantface.data.faces import open_source
    from efquantface.data.inspection import extract_source

    console = Console()
    with console.bar("extracting") as advance:
        source = open_source(faces, bool(follow_links))
        written, existing = extract_source(source, output, limit, advance)
    console.log(f"{written:,} images written to {output}, {existing:,} were there")


@verb(data_app, "efq data subset train.rec -o faces.txt --size 4000", name="subset")
def subset(
    faces: Annotated[Path, typer.Argument(help="folder, .rec, .parquet, .tar or list file")],
    output: Annotated[Path, typer.Option("-o", "--output", help="list file to write")],
    size: Annotated[int, whole("images to choose")] = 1000,
    by: Annotated[
        str,
        typer.Option(
            help="random; identities (one image of each person before a second of any); coverage (k-"
            "centre on a teacher's embeddings)",
            callback=one_of(*WAYS),
        ),
    ] = "identities",
    teacher: Annotated[str | None, typer.Option(help="any model, for coverage")] = None,
    preprocess: Preprocess = None,
    seed: Annotated[int, whole("seed of everything random", 0)] = 0,
    follow_links: FollowLinks = None,
    force: Annotated[bool, typer.Option("--force", help="replace an existing list")] = False,
) -> None:
    """Choose some of the images, and write them as a list file for efq compress TEACHER LIST."""
    from efquantface.pipeline.paths import check_model, check_source

    check_source(faces)
    if teacher is not None:
        check_model(teacher)
    from efquantface.verbs.curate import write_subset

    count = write_subset(
        faces,
        output,
        size,
        by,
        teacher=teacher,
        preprocess=preprocess,
        seed=seed,
        follow_links=bool(follow_links),
        force=force,
    )
    say(f"{size:,} of {count:,} images are listed in {output}")


@verb(
    data_app,
    "efq data check FACES --teacher teacher.onnx --against LFW -o exclude.txt",
    name="check",
)
def check(
    faces: Annotated[Path, typer.Argument(help="folder, .rec, .parquet, .tar or list file")],
    teacher: Annotated[str, typer.Option(help="any model; its embeddings decide who is who")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="list of images to leave out")
    ] = Path("exclude.txt"),
    against: Annotated[
        Path | None, typer.Option(help="evaluation faces; nobody in them may be trained on")
    ] = None,
    preprocess: Preprocess = None,
    sheet: Annotated[
        Path | None, typer.Option(help="also draw the listed images (.jpg); it shows faces")
    ] = None,
    resize: Resize = None,
    follow_links: FollowLinks = None,
    force: Annotated[bool, typer.Option("--force", help="replace existing files")] = False,
    json_: Json = None,
) -> None:
    """Find shared people, wrong and doubled identities, near-duplicates and unaligned crops.

    The list is for efq compress --exclude LIST.
    """
    from efquantface.pipeline.paths import check_model_and_faces, check_source

    check_model_and_faces(teacher, str(faces))
    if against is not None:
        check_source(against)
    from efquantface.verbs.curate import check_faces

    result = check_faces(
        faces,
        output,
        teacher=teacher,
        against=against,
        preprocess=preprocess,
        sheet=sheet,
        resize=bool(resize),
        follow_links=bool(follow_links),
        force=force,
    )
    give(result.lines, result.as_dict(), json_)
