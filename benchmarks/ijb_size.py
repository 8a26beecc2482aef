"""IJB-C's size: pool 469,375 crops, score 15,658,489 pairs, compute the ROC; speed and peak memory.

    python benchmarks/ijb_size.py --out runs/ijb_size

Embeddings are synthetic (512-d). Beside ours stands the usual script's way in plain NumPy: all
embeddings in memory, a loop over templates, one gather of all pairs, scikit-learn's ROC. Each way runs
in a process of its own; peak memory is that process's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from commands import command_line
from efquantface.evaluation.metrics import supported_fars, tar_at_far
from efquantface.evaluation.templates import TemplateFlags, TemplatePool, score_template_pairs
from efquantface.runtime.environment import environment

CROPS, TEMPLATES, PAIRS, GENUINE = 469_375, 23_124, 15_658_489, 19_557
SIZE, CHUNK = 512, 4096


def lists() -> tuple[np.ndarray, ...]:
    """Templates and media of the crops, template pairs and labels, in IJB-C's numbers."""
    rng = np.random.default_rng(0)
    people = np.sort(rng.integers(0, 3531, TEMPLATES))
    templates = np.sort(
        np.concatenate([np.arange(TEMPLATES), rng.integers(0, TEMPLATES, CROPS - TEMPLATES)])
    )
    media = rng.integers(0, 5, CROPS)
    a, b = rng.integers(0, TEMPLATES, (2, PAIRS))
    b[:GENUINE] = np.minimum(a[:GENUINE] + 1, TEMPLATES - 1)
    return people, templates, media, a, b, people[a] == people[b]


def crops(templates: np.ndarray, people: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Embeddings around a direction of their person."""
    rng = np.random.default_rng([1, start])
    centres = np.random.default_rng(2).normal(size=(3531, SIZE)).astype(np.float32)
    noise = rng.normal(size=(stop - start, SIZE)).astype(np.float32)
    return centres[people[templates[start:stop]]] + 8 * noise


def ours() -> dict:
    people, templates, media, a, b, same = lists()
    weights = np.ones(CROPS, np.float32)
    making = pooling = 0.0
    pool = TemplatePool(templates, media, weights, TemplateFlags())
    for start in range(0, CROPS, CHUNK):
        began = time.perf_counter()
        rows = crops(templates, people, start, min(start + CHUNK, CROPS))
        making += time.perf_counter() - began
        began = time.perf_counter()
        pool.add(rows)
        pooling += time.perf_counter() - began
    began = time.perf_counter()
    vectors = pool.templates()
    pooling += time.perf_counter() - began
    began = time.perf_counter()
    scores = score_template_pairs(vectors, vectors, a, b)
    genuine, impostor = scores[same], scores[~same]
    tars = {far: tar_at_far(genuine, impostor, far).tar for far in supported_fars(len(impostor))}
    return {"pooling": pooling, "pairs": time.perf_counter() - began, "tar": tars}


def plain() -> dict:
    from sklearn.metrics import roc_curve

    people, templates, media, a, b, same = lists()
    rows = np.concatenate(
        [crops(templates, people, s, min(s + CHUNK, CROPS)) for s in range(0, CROPS, CHUNK)]
    )
    began = time.perf_counter()
    vectors = np.zeros((TEMPLATES, SIZE))
    for t in np.unique(templates):
        (mine,) = np.where(templates == t)
        feats = [rows[mine][media[mine] == m].mean(0) for m in np.unique(media[mine])]
        vectors[t] = np.sum(feats, axis=0)
    vectors = (vectors / np.sqrt((vectors**2).sum(1, keepdims=True))).astype(np.float32)
    pooling = time.perf_counter() - began
    began = time.perf_counter()
    scores = np.zeros(PAIRS, np.float32)
    for start in range(0, PAIRS, 100_000):
        where = slice(start, start + 100_000)
        scores[where] = np.sum(vectors[a[where]] * vectors[b[where]], -1)
    fpr, tpr, _ = roc_curve(same, scores)
    tars = {
        far: float(tpr[np.searchsorted(fpr, far, side="right") - 1])
        for far in supported_fars(int((~same).sum()))
    }
    return {"pooling": pooling, "pairs": time.perf_counter() - began, "tar": tars}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/ijb_size"))
    parser.add_argument("--way", choices=("ours", "plain"), help="run one way and print JSON")
    args = parser.parse_args()
    if args.way:
        result = ours() if args.way == "ours" else plain()
        result["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(result))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    env = environment()
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, {env['threads']} cores; "
        f"`{command_line()}`",
        "",
        "| | crops pooled a second | pairs scored and ROC, a second | peak memory, GB | TAR@1e-4 |",
        "|---|---|---|---|---|",
    ]
    for way in ("ours", "plain"):
        done = subprocess.run(
            [sys.executable, __file__, "--way", way], capture_output=True, text=True, check=True
        )
        r = json.loads(done.stdout.splitlines()[-1])
        lines.append(
            f"| {way} | {CROPS / r['pooling']:,.0f} | {PAIRS / r['pairs']:,.0f} "
            f"| {r['peak_gb']:.2f} | {100 * r['tar']['0.0001']:.3f} |"
        )
        (args.out / f"{way}.json").write_text(json.dumps(r, indent=1))
    print("\n".join(lines))
    (args.out / "ijb_size.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
