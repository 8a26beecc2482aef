"""Verbs about stored embeddings: embed, compare-gallery."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from efquantface.cli.flags import share, whole
from efquantface.cli.options import (
    Backend,
    Device,
    Embedding,
    Flip,
    FollowLinks,
    Preprocess,
    Resize,
    Size,
    Threads,
    Threshold,
    in_pixels,
)
from efquantface.cli.verb import Json, give
from efquantface.data.addresses import is_address
from efquantface.errors import DataError
from efquantface.files import write_text

_FILES = (".npz", ".parquet")
_OTHERS = (".csv", ".json", ".npy", ".txt", ".tsv", ".h5", ".pkl", ".tar", ".rec", ".zip")
_MODEL = "any model: ONNX, OpenVINO, checkpoint, run, name"


def embed(
    model: Annotated[str, typer.Argument(help=_MODEL)],
    faces: Annotated[
        list[str],
        typer.Argument(
            help="folder, .rec, .bin, .parquet, .tar (WebDataset) or list file; several of them, "
            "patterns and addresses (s3://...) are shards of a gallery"
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            help=".npz or .parquet for one source; a folder or address for shards, with one file each; "
            "biometric data (mode 0600)",
        ),
    ] = "embeddings.npz",
    preprocess: Preprocess = None,
    size: Size = None,
    backend: Backend = "auto",
    flip: Flip = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="scale embeddings to length 1")
    ] = False,
    resize: Resize = None,
    embedding: Embedding = "float32",
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="only every Nth shard from the Ith on; I counts from 1"),
    ] = None,
    ray: Annotated[
        int | None,
        whole("number of Ray actors, on this machine or the cluster of RAY_ADDRESS"),
    ] = None,
    device: Device = None,
    threads: Threads = None,
    follow_links: FollowLinks = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="replace an existing file; in a gallery, files of other models, settings or shards",
        ),
    ] = False,
    json_: Json = None,
) -> None:
    """Write embeddings, names and identities of faces. After a stop, the same call goes on.

    Each shard becomes one file, which is whole or not there. Shards that are done are kept.
    """
    from efquantface.pipeline.paths import check_model, check_model_and_faces, check_source

    local = [name for name in faces if not is_address(name) and not any(c in name for c in "*?[")]
    if local:
        check_model_and_faces(model, local[0])
    else:
        check_model(model)
    for name in local:
        check_source(Path(name))
    options: dict[str, Any] = {
        "preprocess": preprocess,
        "size": in_pixels(size),
        "backend": backend,
        "flip": bool(flip),
        "normalize": normalize,
        "resize": bool(resize),
        "embedding": embedding,
        "device": device or "cpu",
        "threads": threads,
        "follow_links": bool(follow_links),
        "force": force,
    }
    if not _is_file(output):
        _gallery(model, faces, output, shard, ray, options, json_)
        return
    if len(faces) > 1 or not local or shard is not None or ray is not None:
        raise DataError(
            f"-o {output}: is one file; shards go into a folder, for example -o GALLERY"
        )
    from efquantface.verbs.embed import embed_faces

    count, skipped = embed_faces(model, faces[0], output, **options)
    give(
        [f"{count:,} embeddings in {output}, {skipped:,} images could not be read"],
        {"file": output, "embeddings": count, "unreadable": skipped},
        json_,
    )


def _gallery(
    model: str,
    faces: list[str],
    output: str,
    shard: str | None,
    ray: int | None,
    options: dict[str, Any],
    json_: str | None,
) -> None:
    from efquantface.data.shards import parse_share
    from efquantface.verbs.gallery import Each, embed_gallery, here

    parse_share(shard or "1/1")
    each: Each = here
    if ray is not None:
        from efquantface.ray import workers

        each = workers(ray)
    found = embed_gallery(model, faces, output, shard=shard or "1/1", each=each, **options)
    give(
        [
            f"{found.faces:,} embeddings in {found.shards:,} shards in {output}, "
            f"{found.before:,} of them were there; {found.skipped:,} images could not be read"
        ],
        found.as_dict(),
        json_,
    )


def _is_file(output: str) -> bool:
    """Whether ``-o`` names one file.

    Raises:
        DataError: it has the ending of another kind of file.
    """
    path = Path(output)
    if is_address(output) or output.endswith(("/", "\\")) or path.is_dir():
        return False
    if path.suffix in _FILES:
        return True
    if path.suffix.lower() in _OTHERS or path.is_file():
        raise DataError(
            f"{output}: embeddings are written as {' or '.join(_FILES)}, those of shards into a folder "
            "(end its name in /)"
        )
    return False


def compare_gallery(
    old: Annotated[str, typer.Argument(help="the model that faces are enrolled with")],
    new: Annotated[str, typer.Argument(help="the model that replaces it")],
    sample: Annotated[
        Path,
        typer.Option(help="faces of your own: folder, .rec, .parquet, .tar or list file"),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="also write all results as JSON (mode 0600)"),
    ] = None,
    threshold: Threshold = None,
    far: Annotated[
        float | None,
        share("models are compared at the thresholds of this FAR  [default: 1e-4]"),
    ] = None,
    margin: Annotated[float, share("how much FRR may rise, as a share of genuine pairs")] = 0.005,
    max_images: Annotated[int, whole("images to embed at most, spread over people", 4)] = 10_000,
    preprocess: Preprocess = None,
    size: Size = None,
    backend: Backend = "auto",
    flip: Flip = None,
    resize: Resize = None,
    embedding: Embedding = "float32",
    device: Device = None,
    threads: Threads = None,
    follow_links: FollowLinks = None,
    seed: Annotated[int, whole("seed of the choice of images", 0)] = 0,
    force: Annotated[bool, typer.Option("--force", help="replace an existing file")] = False,
    json_: Json = None,
) -> None:
    """Show how scores and decisions move when NEW replaces OLD, and what to do with the gallery.

    It gives the threshold of NEW at OLD's FAR and the decisions that differ. It says whether the gallery
    may be mixed or must be embedded again. The sample needs people with two images or more.
    """
    from efquantface.pipeline.paths import check_model, check_source

    if far is not None and threshold is not None:
        raise DataError("give --far or --threshold, not both")
    for model in (old, new):
        check_model(model)
    check_source(sample)
    if output is not None and output.exists() and not force:
        raise DataError(f"{output}: exists; give another name or --force")
    from efquantface.verbs.succession import compare_gallery as compare

    found = compare(
        old,
        new,
        sample,
        far=far,
        threshold=threshold,
        margin=margin,
        max_images=max_images,
        preprocess=preprocess,
        size=in_pixels(size),
        backend=backend,
        flip=bool(flip),
        resize=bool(resize),
        embedding=embedding,
        device=device or "cpu",
        threads=threads,
        follow_links=bool(follow_links),
        seed=seed,
    )
    numbers = found.as_dict()
    if output is not None:
        write_text(output, json.dumps(numbers, indent=2) + "\n", private=True)
    give(found.lines(), numbers, json_)
