"""Steps a second of one process and of several, and the memory of a set that stays in its files.

    python benchmarks/devices.py --teacher y1.onnx --out rows/devices.jsonl
    python benchmarks/devices.py --teacher t.onnx --images 500 --devices 1 2 --out rows.jsonl

Crops are random patterns, written once as a .rec: what they show plays no part in time or memory. Each
row is one run of ``efq compress``, with the first process's peak memory. The first row leaves crops in
their file; with other --images it shows what memory does.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

MAGIC = 0xCED7230A
EACH = 5  # images a person


def write_record(path: Path, images: int, size: int) -> None:
    """A .rec and its index, of JPEGs of smooth noise."""
    rng = np.random.default_rng(0)
    with path.open("wb") as stream, path.with_suffix(".idx").open("w") as index:
        for key in range(images):
            small = rng.integers(0, 256, (12, 12, 3), np.uint8)
            encoded = io.BytesIO()
            Image.fromarray(small).resize((size, size)).save(encoded, "JPEG", quality=92)
            payload = struct.pack("<IfQQ", 0, key // EACH, key, 0) + encoded.getvalue()
            index.write(f"{key}\t{stream.tell()}\n")
            stream.write(struct.pack("<II", MAGIC, len(payload)) + payload)
            stream.write(b"\0" * (-len(payload) % 4))


def run(args: argparse.Namespace, record: Path, devices: int, gigabytes: float) -> dict:
    """One run, and what it took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "efquantface", "compress", args.teacher, str(record)]
        command += [
            "--devices",
            str(devices),
            "--max-images",
            "100000000",
            "--anyway",
            "--no-cache",
        ]
        command += ["--no-check-alignment", "--no-benchmark", "--rounding", "nearest"]
        command += ["--epochs", "1", "--faces-gb", str(gigabytes), "--hold-out", str(args.hold_out)]
        command += ["--threads", str(args.threads), "-o", f"{folder}/run"]
        began = time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
        log = Path(folder, "run", "log.txt").read_text()
        metrics = json.loads(Path(folder, "run", "metrics.json").read_text())
    steps, seconds = re.findall(r"([\d,]+) steps of ([\d.]+) s", log)[-1]
    history = metrics["history"]
    return {
        "devices": devices,
        "images": args.images,
        "in memory": gigabytes > 0,
        "steps": int(steps.replace(",", "")),
        "planned seconds a step": float(seconds),
        "steps a second": round(int(steps.replace(",", "")) / history["seconds"], 3),
        "peak MB when trained": history["peak_memory_mb"],
        "largest process so far, MB": max(
            before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        )
        / 2**10,
        "seconds": time.monotonic() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="y1.onnx", help="ONNX file of the teacher")
    parser.add_argument("--images", type=int, default=14_000)
    parser.add_argument("--size", type=int, default=112, help="pixels a side")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=1, help="of a process")
    parser.add_argument("--hold-out", type=float, default=0.02)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "faces.rec")
        write_record(record, args.images, args.size)
        jobs = [(1, 0.0), *((n, 1e6) for n in args.devices)]  # what takes least memory comes first
        for devices, gigabytes in jobs:
            row = run(args, record, devices, gigabytes)
            print(json.dumps(row))
            with args.out.open("a") as stream:
                stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
