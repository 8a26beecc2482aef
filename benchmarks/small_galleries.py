"""Embeddings as int8: what they cost in verification, mixed galleries and searches, and which scale.

    pip install faiss-cpu usearch
    python benchmarks/small_galleries.py --shared ../shared --model y1=RUN/student.onnx \
        --model mobileface2=RUN2/student.onnx --out runs/small

All pairs of LFW; mixed pairs are float enrolments against int8 probes at the float threshold. Searches:
LFW's images against 14,000 faces of others and LFW, the same image left out; recall is the share
of the ten
nearest by float cosines that are found. Scales a dimension come from faces6k, which is not in LFW.
Rows: benchmarks/results/small_galleries.jsonl.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from efquantface.codes import QMAX, decode, encode
from efquantface.embedding import stored
from efquantface.evaluation.allpairs import AllPairs, score_all_pairs
from efquantface.evaluation.metrics import tar_at_far
from efquantface.rows import unit
from efquantface.runtime.environment import environment
from efquantface.verbs.embed import embed_faces
from runner import rows
from runner.command import command_line

FARS = (1e-4, 1e-5, 1e-6)
NEAREST = 10
BLOCK = 1024


def embedded(model: str, faces: Path, out: Path) -> stored.Stored:
    """Float embeddings of a set, kept in OUT."""
    if not out.is_file():
        embed_faces(model, faces, out, threads=1)
    return stored.read(out)


def least_squares(rows: np.ndarray) -> np.ndarray:
    """A scale a vector that cuts off what costs less than finer steps bring."""
    best, error = rows, np.full(len(rows), np.inf)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    for share in np.linspace(0.6, 1, 21):
        scale = share * largest / QMAX
        back = np.clip(np.rint(rows / scale), -QMAX, QMAX) * scale
        now = ((back - rows) ** 2).sum(axis=1)
        better = now < error
        best, error = np.where(better[:, None], back, best), np.where(better, now, error)
    return best


def ways(calibration: np.ndarray) -> dict[str, tuple[object, float]]:
    """Name, what rows of length 1 come back as, and bytes beside the codes a vector."""
    whole = np.abs(calibration).max(axis=0) / QMAX
    tight = np.quantile(np.abs(calibration), 0.999, axis=0) / QMAX

    def dimension(scale: np.ndarray) -> object:
        return lambda rows: np.clip(np.rint(rows / scale), -QMAX, QMAX) * scale

    return {
        "int8, a scale a vector (ours)": (lambda rows: decode(*encode(rows)), 4),
        "int8, a scale a vector, least squares": (least_squares, 4),
        "int8, a scale a dimension, largest": (dimension(whole), 0),
        "int8, a scale a dimension, 99.9 %": (dimension(tight), 0),
        "int8, one scale, 1 / 127": (dimension(np.full(len(whole), 1 / QMAX)), 0),
    }


def verification(
    rows: np.ndarray, back: np.ndarray, people: np.ndarray, base: AllPairs
) -> dict[str, float]:
    """Losses of TAR and of mixed TAR to float, in points."""
    own = score_all_pairs(back.astype(np.float32), people)
    mixed = score_all_pairs(rows, people, probes=back.astype(np.float32))
    found = {"1 - cosine": float(1 - (unit(back.astype(np.float32)) * rows).sum(axis=1).mean())}
    for far in FARS:
        point = tar_at_far(base.genuine, base.top_impostors, far, base.impostors)
        other = tar_at_far(own.genuine, own.top_impostors, far, own.impostors)
        at = float((mixed.genuine >= point.threshold).mean())
        found[f"TAR@{far:g}"] = 100 * other.tar
        found[f"loss@{far:g}"] = 100 * (point.tar - other.tar)
        found[f"mixed loss@{far:g}"] = 100 * (point.tar - at)
        found[f"mixed FAR@{far:g}"] = float(
            (mixed.top_impostors >= point.threshold).sum() / mixed.impostors
        )
    return found


def nearest(gallery: np.ndarray, probes: np.ndarray, same: np.ndarray) -> np.ndarray:
    """The ten nearest by cosine, the probe's own row left out."""
    found = np.empty((len(probes), NEAREST), np.int64)
    for start in range(0, len(probes), BLOCK):
        stop = min(start + BLOCK, len(probes))
        scores = probes[start:stop] @ gallery.T
        scores[np.arange(stop - start), same[start:stop]] = -np.inf
        found[start:stop] = np.argsort(-scores, axis=1)[:, :NEAREST]
    return found


def recall(found: np.ndarray, truth: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """Share of the nearest one and of the ten nearest that are found; own rows are not counted."""
    kept = [[i for i in row if i != own][:NEAREST] for row, own in zip(found, same, strict=True)]
    ten = np.mean([len({*k} & {*t}) / NEAREST for k, t in zip(kept, truth, strict=True)])
    one = np.mean([bool(k) and k[0] == t[0] for k, t in zip(kept, truth, strict=True)])
    return 100 * float(one), 100 * float(ten)


def searches(gallery: np.ndarray, probes: np.ndarray, same: np.ndarray) -> list[dict]:
    """Recall and bytes a vector of each index."""
    truth = nearest(gallery, probes, same)
    size = gallery.shape[1]
    rows = []

    def add(name: str, width: float, find: object) -> None:
        began = time.perf_counter()
        found = find()
        seconds = time.perf_counter() - began
        one, ten = recall(found, truth, same)
        rows.append({"index": name, "bytes": width, "one": one, "ten": ten, "seconds": seconds})

    codes = unit(decode(*encode(gallery)))
    add("float32, exact", 4 * size, lambda: truth)
    add("our codes, float probes", size, lambda: nearest(codes, probes, same))
    add(
        "our codes, int8 probes",
        size,
        lambda: nearest(codes, unit(decode(*encode(probes))), same),
    )
    try:
        import faiss
    except ImportError:
        print("faiss is not installed: its rows are left out")
    else:
        faiss.omp_set_num_threads(1)
        index = faiss.IndexScalarQuantizer(
            size, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        index.train(gallery)
        index.add(gallery)
        add("faiss SQ8", size, lambda: index.search(probes, NEAREST + 1)[1])
    try:
        from usearch.index import Index
    except ImportError:
        print("usearch is not installed: its rows are left out")
    else:
        for dtype, width in (("f32", 4 * size), ("i8", size)):
            made = Index(ndim=size, metric="cos", dtype=dtype)
            made.add(np.arange(len(gallery)), gallery, threads=1)
            for exact in (True, False):

                def find(index: object = made, exact: bool = exact) -> np.ndarray:
                    return index.search(probes, NEAREST + 1, exact=exact, threads=1).keys

                add(f"usearch {dtype}, {'exact' if exact else 'HNSW'}", width, find)
        made = Index(ndim=size, metric="cos", dtype="i8")
        made.add(np.arange(len(gallery)), encode(gallery)[0], threads=1)
        few = encode(probes)[0]
        add(
            "usearch i8 of our codes, exact",
            size,
            lambda: made.search(few, NEAREST + 1, exact=True, threads=1).keys,
        )
        add(
            "usearch i8 of our codes, HNSW",
            size,
            lambda: made.search(few, NEAREST + 1, threads=1).keys,
        )
    return rows


def measure(name: str, model: str, args: argparse.Namespace) -> dict:
    """All numbers of a model."""
    data, limit = args.shared / "data", args.limit
    sets = {
        part: embedded(model, data / part, args.out / f"{name}_{part}.npz")
        for part in ("lfw112", "faces6k", "extra")
    }
    rows = {part: unit(found.rows, strict=False)[:limit] for part, found in sets.items()}
    people = np.unique(sets["lfw112"].identities[:limit], return_inverse=True)[1]
    lfw = rows["lfw112"]
    base = score_all_pairs(lfw, people)
    float_tar = {
        f"TAR@{far:g}": 100 * tar_at_far(base.genuine, base.top_impostors, far, base.impostors).tar
        for far in FARS
        if far * base.impostors >= 1
    }
    forms = []
    for form, (back, extra) in ways(rows["faces6k"]).items():
        numbers = verification(lfw, np.asarray(back(lfw)), people, base)
        forms.append({"form": form, "bytes": lfw.shape[1] + extra, **numbers})
    gallery = np.concatenate([lfw, rows["faces6k"], rows["extra"]])
    found = searches(gallery, lfw, np.arange(len(lfw)))
    size = lfw.shape[1]
    return {
        "model": name,
        "size": size,
        "float": float_tar,
        "forms": forms,
        "gallery": len(gallery),
        "searches": found,
    }


def table(found: list[dict]) -> list[str]:
    """The tables of docs/galleries.md."""
    lines = []
    for model in found:
        tars = ", ".join(f"{k} {v:.2f}" for k, v in model["float"].items())
        lines += [
            f"{model['model']}, {model['size']} values, float32 {4 * model['size']} bytes: {tars}",
            "",
            "| form | bytes | 1 - cosine | "
            + " | ".join(f"loss of TAR@{far:g}" for far in FARS)
            + " | "
            + " | ".join(f"mixed, {far:g} (its FAR)" for far in FARS)
            + " |",
            "|" + "---|" * (3 + 2 * len(FARS)),
        ]
        for f in model["forms"]:
            cells = [f["form"], f"{f['bytes']:.0f}", f"{f['1 - cosine']:.1e}"]
            cells += [f"{f[f'loss@{far:g}']:+.3f}" for far in FARS]
            cells += [
                f"{f[f'mixed loss@{far:g}']:+.3f} ({f[f'mixed FAR@{far:g}']:.2e})" for far in FARS
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines += [
            "",
            f"Searches among {model['gallery']:,} faces, one thread",
            "",
            "| index | bytes a vector | nearest found, % | ten nearest, % | seconds |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {s['index']} | {s['bytes']:,} | {s['one']:.2f} | {s['ten']:.2f} | {s['seconds']:.1f} |"
            for s in model["searches"]
        ]
        lines.append("")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument(
        "--model", action="append", required=True, help="NAME=FILE; may be repeated"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="only so many faces of each set, to try it")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found = []
    for text in args.model:
        name, _, model = text.partition("=")
        found.append(measure(name, model, args))
        rows.keep("small_galleries", {**rows.stamp(), "name": name, **found[-1]})
    env = environment()
    head = f"{time.strftime('%Y-%m-%d')}, {env['processor']}; `{command_line()}`"
    text = "\n".join([head, "", *table(found)])
    print(text)


if __name__ == "__main__":
    main()
