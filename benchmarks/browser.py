"""Milliseconds a face in headless Chromium: each model in LiteRT.js and in ONNX Runtime Web.

    python benchmarks/browser.py --out runs/browser --models y1=../shared/weights/y1.onnx \
        y1-w8a8=RUN mobileface2=../shared/weights/mobileface2.onnx mobileface2-w8a8=RUN

A model is whatever efq reads; a float network is written in float. Sites are those of
`efq export --format web`, one thread, all pages of a browser open at once and timed in turns: medians
and quartiles over all faces. `cosine` is the least of the page's embeddings to those of the same file
on this machine, over crops of the default generator. Needs Chromium and npm.
Writes OUT/browser.md and browser.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from commands import command_line
from efquantface import assets
from efquantface.data.synthetic import load_generator, synthetic_faces
from efquantface.formats.delivery import deliver
from efquantface.formats.table import FORMATS, Choices
from efquantface.formats.web import RUNTIMES
from efquantface.importers.load import load_model
from efquantface.runtime.environment import environment

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


def site(path: str, runtime: str, folder: Path) -> tuple[float, int]:
    """Write a site; returns the seconds that took, and the model's bytes."""
    start = time.monotonic()
    deliver(load_model(path), FORMATS["web"], folder, Choices(runtime=runtime))
    (folder / "node_modules").symlink_to(npm_packages())
    return time.monotonic() - start, next(folder.glob("model.*")).stat().st_size


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
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(found, axis=1)
    return float(((own * np.array(found)).sum(1) / lengths).min())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", required=True, help="NAME=MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--faces", type=int, default=5, help="a round")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    browser = Browser()
    with contextlib.ExitStack() as open_ones:
        open_ones.callback(browser.close)
        pages = []
        for name, path in (entry.split("=", 1) for entry in args.models):
            for runtime in RUNTIMES:
                folder = args.out / f"{name}-{runtime}-{int(time.time())}"
                _, size = site(path, runtime, folder)
                page = browser.page()
                page.go(open_ones.enter_context(served(folder)))
                page.js(OPEN)
                pages.append((page, []))
                cosine = agreement(page, path, folder)
                rows.append({"model": name, "runtime": runtime, "bytes": size, "cosine": cosine})
        for _ in range(args.rounds):
            for page, times in pages:
                times += page.js(TIME.replace("FACES", str(args.faces)))
        version = browser.send("Browser.getVersion")["product"]
    env = environment()
    packages = ", ".join(f"{k} {v}" for r in RUNTIMES.values() for k, v in r.packages.items())
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {env['processor']} ({', '.join(env['instruction_sets'])}), "
        f"{version}, {packages}; `{command_line()}`",
        "",
        "| | runtime | ms a face | quartiles | MB | cosine |",
        "|---|---|---|---|---|---|",
    ]
    for row, (_, times) in zip(rows, pages, strict=True):
        low, middle, high = np.percentile(times, (25, 50, 75))
        row |= {"median_ms": middle, "quartiles_ms": [low, high], "faces": len(times)}
        lines.append(
            f"| {row['model']} | {row['runtime']} | {middle:.1f} | {low:.1f}-{high:.1f} "
            f"| {row['bytes'] / 1e6:.2f} | {row['cosine']:.6f} |"
        )
    (args.out / "browser.md").write_text("\n".join([*lines, ""]))
    (args.out / "browser.json").write_text(json.dumps({"head": lines[0], "rows": rows}, indent=1))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
