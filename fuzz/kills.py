"""SIGKILL at random moments of a run. The run is resumed each time and must give the same student.

    python -m fuzz.kills TEACHER FACES --kills 100 --seed 0 [-- --epochs 2 --bits w8a8]

A run without a kill is timed and gives the right student. Then runs are killed after a random share of
that time and resumed (`--resume`) until one ends. Its student must be the same byte for byte. No
unfinished file may be left, and no call may print a traceback.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def compress(words: list[str], folder: Path, after: float | None) -> tuple[bool, str]:
    """Whether a call ended by itself, and its output. It is killed ``after`` seconds; None: not."""
    command = [sys.executable, "-m", "efquantface", "compress", *words, "-o", str(folder)]
    resume = ["--resume"] if (folder / "recipe.yaml").is_file() else []
    with subprocess.Popen(
        [*command, *resume], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            return False, said
    if process.returncode:
        raise SystemExit(f"ended with {process.returncode} in {folder}:\n{said}")
    return True, said


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher")
    parser.add_argument("faces")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    own, _, flags = (" ".join(sys.argv[1:]) + " ").partition(" -- ")
    args = parser.parse_args(own.split())
    words = [args.teacher, args.faces, *flags.split(), "--threads", "1", "--no-benchmark"]
    draw, kills, runs = random.Random(args.seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        compress(words, Path(name) / "whole", None)
        whole = time.monotonic() - began
        wanted = (Path(name) / "whole" / "student.onnx").read_bytes()
        while kills < args.kills:
            folder, ended, runs = Path(name) / f"run{runs}", False, runs + 1
            while not ended:
                last = kills >= args.kills
                ended, said = compress(words, folder, None if last else draw.uniform(0, whole))
                kills += not ended
                if "Traceback" in said:
                    raise SystemExit(f"a traceback in {folder}:\n{said}")
            if (folder / "student.onnx").read_bytes() != wanted:
                raise SystemExit(f"{folder}: another student than that of a run without a kill")
            left = [
                p.name for p in folder.iterdir() if "partial" in p.name or "unchecked" in p.name
            ]
            if left:
                raise SystemExit(f"{folder}: {', '.join(left)} is left")
            print(f"{kills} kills, {runs} runs ended with the same student", flush=True)


if __name__ == "__main__":
    main()
