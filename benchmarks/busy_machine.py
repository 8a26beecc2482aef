"""Ranges and rounding of a student beside other work: how long OpenMP's threads wait for each other.

    python benchmarks/busy_machine.py --model mobileface2.onnx
    python benchmarks/busy_machine.py --model mobileface2.onnx --beside 0 4 --rounds 3

Each line is the median of --rounds processes that quantize MODEL with 64 random crops, on all cores,
beside so many processes that compute without end; `GOMP_SPINCOUNT` unset is what OpenMP does by itself,
2000 is what the package sets. Rows: benchmarks/results/busy_machine.jsonl.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from runner import rows
from runner.script import parser

TURNS = (None, "1000", "2000", "3000", "10000")
# torch comes first, so that what the package sets is too late
WORK = """
import time, torch
from efquantface.console import Console
from efquantface.importers.load import load_model
from efquantface.pipeline.start import make_start
from efquantface.quantize.scheme import Scheme
from efquantface.runtime.memory import keep_freed_memory
import sys
keep_freed_memory()
model = load_model(sys.argv[1])
draw = torch.Generator().manual_seed(0)
size = (32, 3, model.contract.height, model.contract.width)
crops = [torch.randint(0, 256, size, generator=draw, dtype=torch.uint8) for _ in range(2)]
began = time.monotonic()
make_start(model, crops, Scheme(), None, 0, Console(quiet=True))
print(time.monotonic() - began)
"""


def seconds(model: Path, turns: str | None) -> float:
    """Of one process."""
    given = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")}
    given |= {"GOMP_SPINCOUNT": turns} if turns else {}
    command = [sys.executable, "-c", WORK, str(model)]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--model", type=Path, required=True)
    words.add_argument("--beside", type=int, nargs="+", default=[0, 4], help="processes beside it")
    words.add_argument("--rounds", type=int, default=3)
    args = words.parse_args()
    found = []
    for count in args.beside:
        others = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)
        ]
        try:
            times: dict[str | None, list[float]] = {turns: [] for turns in TURNS}
            for _ in range(args.rounds):  # in turns
                for turns in TURNS:
                    times[turns].append(seconds(args.model, turns))
        finally:
            for other in others:
                other.kill()
        for turns in TURNS:
            middle = statistics.median(times[turns])
            found.append({"beside": count, "turns": turns, "seconds": middle, "all": times[turns]})
            print(f"beside {count}: GOMP_SPINCOUNT {turns or 'unset'}: {middle:.1f} s", flush=True)
    row = {"name": args.model.name, "cores": os.cpu_count(), "found": found}
    rows.keep("busy_machine", {**rows.stamp(), **row})


if __name__ == "__main__":
    main()
