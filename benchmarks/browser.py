"""Milliseconds a face in headless Chromium: each model in LiteRT.js and in ONNX Runtime Web.

    python benchmarks/browser.py --out runs/browser --models y1=../shared/weights/y1.onnx \
        y1-w8a8=RUN mobileface2=../shared/weights/mobileface2.onnx mobileface2-w8a8=RUN

A model is whatever efq reads; a float network is written in float. Sites are those of
`efq export --format web`, one thread, all pages of a browser open at once and timed in turns: medians
and quartiles over all faces. `cosine` is the least of the page's embeddings to those of the same file
on this machine, over crops of the default generator. Needs Chromium and npm.
Rows: benchmarks/results/browser.jsonl.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from efquantface import assets
from efquantface.data.synthetic import load_generator, synthetic_faces
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS, Choices
from efquantface.formats.web import RUNTIMES
from efquantface.importers.load import load_model
from runner import rows
from runner.crops import cosines
from runner.script import parser

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from chromium import Browser, Page, npm_packages, served

CROPS = 4  # people
OPEN = """import('./recognizer.js').then(async ({ openRecognizer }) => {
    window.recognizer = await openRecognizer();
    return true;
})"""
TIME = """(async () => {
    const { width, height } = recognizer.contract;
    const times = [];
    for (let i = 0; i < FACES + 3; i++) {
        const data = Uint8ClampedArray.from({ length: 4 * width * height }, () => 256 * Math.random());
        const start = performance.now();
        await recognizer.embed({ width, height, data });
        if (i > 2) times.push(performance.now() - start);
    }
    return times;
})()"""


def site(path: str, runtime: str, folder: Path) -> int:
    """Write a site; returns the model's bytes."""
    deliver(load_model(path), FORMATS["web"], folder, Choices(runtime=runtime))
    (folder / "node_modules").symlink_to(npm_packages())
    return next(folder.glob("model.*")).stat().st_size


def agreement(page: Page, path: str, folder: Path) -> float:
    """The least cosine of the page's embeddings to those of the same file on this machine."""
    contract = load_model(path).contract
    generator = load_generator(assets.path_of(assets.FACE_GENERATOR))
    crops = synthetic_faces(generator, contract, identities=CROPS, images_each=2, seed=5).images
    size = crops.shape
    own = FORMATS["web"].room.open(folder)(contract.normalize(crops))
    alpha = np.full((*size[:3], 1), 255, np.uint8)
    found = []
    for rgba in np.concatenate([crops, alpha], axis=3):
        data = f"Uint8ClampedArray.from({rgba.ravel().tolist()})"
        crop = f"{{width: {size[2]}, height: {size[1]}, data: {data}}}"
        found.append(page.js(f"recognizer.embed({crop}).then(e => [...e])"))
    return cosines(own, np.array(found))[1]


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--models", nargs="+", required=True, help="NAME=MODEL")
    words.add_argument("--out", type=Path, required=True)
    words.add_argument("--rounds", type=int, default=12)
    words.add_argument("--faces", type=int, default=5, help="a round")
    args = words.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    made: list[dict[str, Any]] = []
    browser = Browser()
    with contextlib.ExitStack() as open_ones:
        open_ones.callback(browser.close)
        pages = []
        for name, path in (entry.split("=", 1) for entry in args.models):
            for runtime in RUNTIMES:
                folder = args.out / f"{name}-{runtime}-{int(time.time())}"
                size = site(path, runtime, folder)
                page = browser.page()
                page.go(open_ones.enter_context(served(folder)))
                page.js(OPEN)
                pages.append((page, []))
                cosine = agreement(page, path, folder)
                made.append({"model": name, "runtime": runtime, "bytes": size, "cosine": cosine})
        for _ in range(args.rounds):
            for page, times in pages:
                times += page.js(TIME.replace("FACES", str(args.faces)))
        version = browser.send("Browser.getVersion")["product"]
    packages = {k: v for r in RUNTIMES.values() for k, v in r.packages.items()}
    versions = {"packages": {**packages, "chromium": version}}
    for row, (_, times) in zip(made, pages, strict=True):
        low, middle, high = np.percentile(times, (25, 50, 75))
        row |= {"median_ms": middle, "quartiles_ms": [low, high], "faces": len(times)}
        name = f"{row['model']} in {row['runtime']}"
        rows.keep("browser", {**rows.stamp(), **versions, "name": name, **row})
        print(f"{name}: {middle:.1f} ms ({low:.1f} to {high:.1f}), cosine {row['cosine']:.6f}")


if __name__ == "__main__":
    main()
