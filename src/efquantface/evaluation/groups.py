"""The spread between groups of people: RFW's four, or those of a table of names and groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface.data.faces import FaceSet
from efquantface.data.texts import read_table
from efquantface.errors import DataError
from efquantface.evaluation.allpairs import score_all_pairs
from efquantface.evaluation.metrics import FoldAccuracy, Scores
from efquantface.evaluation.paired import Embeddings, plain_metric
from efquantface.evaluation.result import Metric, ProtocolResult
from efquantface.evaluation.sets import Pairs

_FEWEST = 20  # genuine pairs; smaller groups are not reported


def read_groups(path: Path) -> dict[str, str]:
    """Groups by name, from a CSV file with the columns ``name`` (of an identity or image) and ``group``.

    Raises:
        DataError: a column is missing, or a name is in two groups.
    """
    found: dict[str, str] = {}
    for line, row in read_table(path, ("name", "group")):
        name, group = row["name"].strip(), row["group"].strip()
        if found.setdefault(name, group) != group:
            raise DataError(f"{path}:{line}: {name!r} is in two groups")
    return found


def group_of(faces: FaceSet, groups: dict[str, str]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Group numbers (N,) of images by their name or their identity's, -1 for none; and the names.

    Raises:
        DataError: no image has a group.
    """
    names = sorted(set(groups.values()))
    numbers = {name: i for i, name in enumerate(names)}
    labels = []
    for image, identity in zip(faces.names, faces.identities, strict=True):
        person = faces.identity_names[identity] if identity >= 0 else str(Path(image).parent)
        group = groups.get(image, groups.get(person))
        labels.append(-1 if group is None else numbers[group])
    if set(labels) == {-1}:
        raise DataError(
            f"--group-by names none of the images or identities of {faces.source}, "
            f"for example {faces.names[0]!r}"
        )
    return np.asarray(labels, np.int64), names


def pair_groups(
    faces: FaceSet,
    pairs: Pairs,
    scores: dict[str, Scores],
    folds: dict[str, FoldAccuracy],
    groups: dict[str, str],
) -> list[Metric]:
    """Accuracy on the pairs within each group, at the thresholds of the whole set.

    Raises:
        DataError: no image has a group.
    """
    labels, names = group_of(faces, groups)
    inside = np.where(labels[pairs.a] == labels[pairs.b], labels[pairs.a], -1)
    found: dict[str, dict[str, float]] = {}
    sizes: dict[str, int] = {}
    for number, group in enumerate(names):
        chosen = inside == number
        if int((chosen & pairs.same).sum()) >= _FEWEST:
            found[group] = {n: float(f.correct[chosen].mean()) for n, f in folds.items()}
            sizes[group] = int(chosen.sum())
    return _spread("accuracy", found, {g: f"{n:,} pairs" for g, n in sizes.items()})


def people_groups(
    faces: FaceSet,
    rows: dict[str, Embeddings],
    thresholds: dict[str, float],
    far: float,
    groups: dict[str, str],
) -> list[Metric]:
    """FAR and TAR in each group at the thresholds that give ``far`` over all pairs.

    Raises:
        DataError: no image has a group.
    """
    labels, names = group_of(faces, groups)
    tars: dict[str, dict[str, float]] = {}
    fars: dict[str, dict[str, float]] = {}
    notes: dict[str, str] = {}
    for number, group in enumerate(names):
        index = np.flatnonzero(labels == number)
        if len(index) < 2:
            continue
        results = {n: score_all_pairs(r[index], faces.identities[index]) for n, r in rows.items()}
        first = results["teacher"]
        if len(first.genuine) < _FEWEST or not first.impostors:
            continue
        tars[group] = {n: float((r.genuine >= thresholds[n]).mean()) for n, r in results.items()}
        fars[group] = {
            n: float((r.top_impostors >= thresholds[n]).sum()) / r.impostors
            for n, r in results.items()
        }
        notes[group] = f"{len(first.genuine):,} genuine, {first.impostors:,} impostor pairs"
    at = f"at FAR={far:g} over all"
    return _spread(f"TAR {at}", tars, notes) + _spread(f"FAR {at}", fars, notes)


def _spread(what: str, found: dict[str, dict[str, float]], notes: dict[str, str]) -> list[Metric]:
    """One metric per group, and the largest difference between groups."""
    metrics = []
    for group, values in found.items():
        metric = plain_metric(f"{group}: {what}", values)
        metric.note = notes[group]
        metrics.append(metric)
    if len(found) > 1:
        models = next(iter(found.values()))
        spread = {
            n: max(v[n] for v in found.values()) - min(v[n] for v in found.values()) for n in models
        }
        metrics.append(
            Metric(f"spread of {what}", spread["teacher"], student=spread.get("student"))
        )
    return metrics


def spread_of_sets(results: list[ProtocolResult]) -> list[Metric]:
    """The spread of accuracies between sets that are groups of one benchmark (RFW)."""
    accuracies = {r.protocol: r.metric("accuracy") for r in results}
    values = {
        name: {n: v for n, v in (("teacher", m.teacher), ("student", m.student)) if v is not None}
        for name, m in accuracies.items()
    }
    found = _spread("accuracy", values, dict.fromkeys(values, ""))
    worst = {n: max(1 - v[n] for v in values.values()) for n in next(iter(values.values()))}
    best = {n: min(1 - v[n] for v in values.values()) for n in worst}
    ratio = {n: worst[n] / best[n] if best[n] > 0 else float("inf") for n in worst}
    skew = Metric("ratio of errors, worst to best", ratio["teacher"], student=ratio.get("student"))
    return [*found[-1:], skew]
