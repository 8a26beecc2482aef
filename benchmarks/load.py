"""One model embedded from many threads of many processes at once: right rows, and flat memory.

    python benchmarks/load.py MODEL [--processes 4 --threads 8 --crops 100000]

Each process opens MODEL once, and its threads share that `Embedder`. A call takes a random number of
crops, from 1 to 32, at a random place of one pool; its rows have to equal, to the last bit, those that
one thread made of the whole pool. Resident memory is read after each tenth of a process's crops.
Row: benchmarks/results/load.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from commands import command_line
from efquantface.embedding.embedder import Embedder
from efquantface.runtime.environment import environment

ROWS = Path(__file__).parent / "results" / "load.json"
POOL = 512  # different crops
LARGEST = 32  # crops a call
PARTS = 10


def pool(embedder: Embedder) -> np.ndarray:
    """Random crops of the model's size."""
    size = embedder.contract.height, embedder.contract.width
    return np.random.default_rng(0).integers(0, 256, (POOL, *size, 3), dtype=np.uint8)


def process(
    model: Path, threads: int, crops: int, seed: int, results: multiprocessing.Queue
) -> None:
    """(wrong rows, rows, resident bytes after each tenth) of one process, put into ``results``."""
    embedder = Embedder.open(model, threads=1)
    faces = pool(embedder)
    right = embedder.embed(faces)
    lock, memory = threading.Lock(), [psutil.Process().memory_info().rss]
    done = wrong = 0

    def thread(number: int) -> None:
        nonlocal done, wrong
        draw = random.Random(seed * threads + number)
        while True:
            count = draw.randint(1, LARGEST)
            start = draw.randint(0, POOL - count)
            rows = embedder.embed(faces[start : start + count])
            differing = int((rows != right[start : start + count]).any(axis=1).sum())
            with lock:
                done, wrong = done + count, wrong + differing
                if done >= len(memory) * crops / PARTS and len(memory) <= PARTS:
                    memory.append(psutil.Process().memory_info().rss)
                if done >= crops:
                    return

    workers = [threading.Thread(target=thread, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    results.put((wrong, done, memory))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--crops", type=int, default=100_000, help="of all processes together")
    args = parser.parse_args()
    context, began = multiprocessing.get_context("spawn"), time.monotonic()
    results = context.Queue()
    each = -(-args.crops // args.processes)
    workers = [
        context.Process(target=process, args=(args.model, args.threads, each, seed, results))
        for seed in range(args.processes)
    ]
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    seconds, wrong = time.monotonic() - began, sum(rows for rows, _, _ in found)
    megabytes = [[round(value / 1e6) for value in memory] for _, _, memory in found]
    # the first tenth is where each thread's buffers are made
    grown = max(memory[-1] - memory[1] for _, _, memory in found) / 1e6
    print(f"{sum(done for _, done, _ in found):,} crops in {seconds:.0f} s, {wrong} rows differ")
    for memory in megabytes:
        print(f"MB after each tenth: {' '.join(map(str, memory))}")
    print(f"grown since the first tenth: {grown:.1f} MB at most")
    env = environment()
    row = {
        "model": args.model.name,
        "date": time.strftime("%Y-%m-%d"),
        "processor": env["processor"],
        "cores": os.cpu_count(),
        "command": command_line(),
        "crops": args.crops,
        "seconds": round(seconds),
        "differing": wrong,
        "megabytes": megabytes,
        "grown_mb": round(grown, 1),
    }
    ROWS.write_text(json.dumps(row, indent=1) + "\n")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
