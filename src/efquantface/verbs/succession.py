"""``efq compare-gallery``: a new model under an existing gallery, tried on the user's own faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from efquantface.assets import file_sha256
from efquantface.codes import rounded
from efquantface.console import Console
from efquantface.data.faces import FaceSet, cap, load, open_source
from efquantface.data.source import FaceSource
from efquantface.embedding.embedder import Embedder
from efquantface.embedding.parts import Way, fitted
from efquantface.errors import DataError
from efquantface.evaluation.advice import MARGIN, Verdict, judge
from efquantface.evaluation.succession import Succession, compare
from efquantface.evaluation.tally import Case, Share
from efquantface.importers.contracts import resolve

IMAGES = 10_000  # of which all pairs are scored


@dataclass(frozen=True)
class Compared:
    """What :func:`compare_gallery` finds.

    Attributes:
        models: name and digest of ``old`` and ``new``.
        sample: the source of the faces, as given.
        names: of the sample's images.
        found: scores, thresholds and decisions.
        verdict: what to do with the gallery.
    """

    models: dict[str, dict[str, str]]
    sample: str
    names: list[str]
    found: Succession
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        """Plain data; pairs whose decision differs carry the names of their images."""
        found = asdict(self.found)
        for example in found["examples"]:
            example |= {side: self.names[example[side]] for side in ("a", "b")}
        return {"models": self.models, "sample": self.sample, **asdict(self.verdict), **found}

    def lines(self) -> list[str]:
        """Lines of text for a terminal."""
        f, v = self.found, self.verdict
        kind = "people" if f.labelled else "images without names"
        genuine = "genuine" if f.labelled else "accepted by OLD"
        lines = [
            f"{self.sample}: {f.images:,} images, {f.people:,} {kind}; {f.genuine:,} pairs {genuine}, "
            f"{f.impostor:,} impostor pairs",
            f"OLD at threshold {f.threshold:.4f}: FAR {f.far:.2g}, FRR {f.frr:.2%}",
            "",
            "thresholds of the same FAR: "
            + ", ".join(f"{_WHOSE[name]} {value:.4f}" for name, value in f.thresholds.items()),
            "",
            "scores, from OLD's to",
        ]
        lines += [
            f"  {_WHOSE[m.scores]}, {m.pairs} pairs: mean {m.old:.4f} to {m.mean:.4f}, moved by "
            f"{m.shift:+.4f} +- {m.spread:.4f} (90 % between {m.low:+.3f} and {m.high:+.3f}), "
            f"correlation {m.correlation:.3f}"
            for m in f.moves
        ]
        lines += ["", "decisions that differ from OLD's, with 95 % intervals"]
        for case in f.cases:
            lines += _case_lines(case)
        lines += ["", f"The gallery: {v.verdict}."]
        if v.threshold is not None:
            lines[-1] = f"The gallery: {v.verdict}; threshold {v.threshold:.4f}."
        return [*lines, *(f"  {reason}" for reason in v.reasons), "", f"Rule: {v.rule}"]


_WHOSE = {
    "new": "NEW",
    "mixed": "NEW's probes in OLD's gallery",
    "both": "one for old and new enrolments together",
}


def _case_lines(case: Case) -> list[str]:
    return [
        f"  {case.name}, threshold {case.threshold:.4f}: FAR {case.far:.2g}",
        f"    genuine pairs no longer accepted {_share(case.lost)} of {case.people:,} people, newly "
        f"accepted {_share(case.won)}; FRR {_share(case.rise, '+')}",
        f"    impostor pairs newly accepted {_share(case.admitted, digits=5)}, no longer accepted "
        f"{_share(case.refused, digits=5)}",
    ]


def _share(share: Share, sign: str = "", digits: int = 3) -> str:
    low, high = share.interval
    text = f"{share.share:{sign}.{digits}%} ({low:{sign}.{digits}%} to {high:{sign}.{digits}%})"
    return text if sign else f"{share.count:,}, {text}"


def compare_gallery(
    old: str | Path,
    new: str | Path,
    sample: str | Path,
    *,
    far: float | None = None,
    threshold: float | None = None,
    margin: float = MARGIN,
    max_images: int = IMAGES,
    preprocess: str | None = None,
    size: tuple[int, int] | None = None,
    backend: str = "auto",
    flip: bool = False,
    resize: bool = False,
    embedding: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    follow_links: bool = False,
    seed: int = 0,
    quiet: bool = False,
) -> Compared:
    """Decide on a sample of faces what to do with a gallery when its model changes.

    Args:
        old, new: as :meth:`Embedder.open` takes them.
        sample: faces, with identities where they are known; see
            :func:`~efquantface.data.faces.open_source`.
        far: the models are compared at the thresholds of this FAR. None takes 1e-4, or the least that
            the sample supports.
        threshold: the old model's deployed threshold, a cosine, in place of ``far``; needed without
            identities.
        margin: how much FRR may rise, as a share of genuine pairs.
        max_images: images to embed at most, spread over people.
        embedding: ``int8`` stores the new model's embeddings as codes.
        preprocess, size, backend, flip, resize, device, threads, follow_links: as of
            :func:`~efquantface.verbs.embed.embed_faces`.
        seed: of the choice of images.
        quiet: print nothing.

    Raises:
        DataError, EvaluationError: the sample cannot be used, or is too small for what is asked.
        EfqError: a model cannot be used.

    Example:
        >>> found = compare_gallery("old.onnx", "new.onnx", "faces", far=0.01, margin=0.3, quiet=True)
        >>> found.verdict.verdict, found.found.people
        ('may be mixed', 12)
    """
    console = Console(quiet)
    way = Way(flip, embedding=embedding)
    source = open_source(Path(sample), follow_links)
    index = cap(source.identities, max_images, seed)

    embedders = [
        fitted(
            model,
            source,
            size=size,
            resize=resize,
            backend=backend,
            preprocess=preprocess,
            device=device,
            threads=threads,
        )
        for model in (old, new)
    ]
    for embedder in embedders:
        console.log(f"{embedder.name} ({embedder.backend}): {embedder.contract.describe()}")
    sets = _crops(source, embedders, index, resize, console)
    rows = []
    for embedder, faces, who in zip(embedders, sets, ("OLD", "NEW"), strict=True):
        with console.bar(f"embedding, {who}") as advance:
            rows.append(embedder.embed(faces.images, flip=flip, progress=advance))
    if way.embedding == "int8":
        rows[1] = rounded(rows[1])
    people = sets[0].identities if sets[0].has_identities else np.full(len(sets[0]), -1, np.int64)
    with console.bar("scoring all pairs") as advance:
        found = compare(rows[0], rows[1], people, far=far, threshold=threshold, progress=advance)
    models = {
        name: {"model": str(model), "sha256": file_sha256(resolve(model))}
        for name, model in (("old", old), ("new", new))
    }
    return Compared(models, str(sample), list(sets[0].names), found, judge(found, margin))


def _crops(
    source: FaceSource,
    embedders: Sequence[Embedder],
    index: npt.NDArray[np.int64],
    resize: bool,
    console: Console,
) -> list[FaceSet]:
    """One set per model: the faces that both can read, as crops of the model's size.

    Raises:
        DataError: fewer than two faces can be read.
    """
    made: dict[tuple[int, int], FaceSet] = {}
    for contract in (e.contract for e in embedders):
        shape = (contract.height, contract.width)
        if shape not in made:
            with console.bar("loading") as advance:
                made[shape] = load(source, contract, index, resize=resize, progress=advance)
    sets = list(made.values())
    for name, why in sets[0].skipped[:5]:
        console.warn(f"skipped {name}: {why}")
    common = set.intersection(*({*s.names} for s in sets))
    if len(common) < 2:
        raise DataError(f"{source.where}: fewer than two faces can be read")
    kept = {
        shape: s.subset(np.flatnonzero([name in common for name in s.names]))
        for shape, s in made.items()
    }
    return [kept[e.contract.height, e.contract.width] for e in embedders]
