"""``python -m fuzz``: all targets, each for a share of the time or for a fixed number of inputs."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # in front of imports that count cores

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]  # the tests' writers make the seeds

from fuzz.readers import TARGETS  # noqa: E402
from fuzz.runner import Outcome, Reader, run  # noqa: E402
from fuzz.target import write_files  # noqa: E402


def main() -> int:
    """The command line; gives 1 if an input failed."""
    told = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    told.add_argument("targets", nargs="*", help=f"targets: {', '.join(TARGETS)}; default: all")
    told.add_argument("--minutes", type=float, help="time for all targets together")
    told.add_argument("--inputs", type=int, help="number of inputs for each target")
    told.add_argument(
        "--short", action="store_true", help="the number of inputs that each commit is checked with"
    )
    told.add_argument("--seed", type=int, default=1)
    told.add_argument("--replay", metavar="ID", help="read one input again, with its traceback")
    told.add_argument(
        "--keep", type=Path, metavar="DIR", help="with --replay: a folder for the files"
    )
    given = told.parse_args()
    if given.replay:
        return _replay(given.replay, given.keep)
    names = given.targets or list(TARGETS)
    outcomes = []
    for name in names:
        target = TARGETS[name]
        inputs = target.short if given.short else given.inputs
        seconds = 60 * given.minutes / len(names) if given.minutes else None
        if inputs is None and seconds is None:
            told.error("give --minutes, --inputs or --short")
        outcomes.append(run(target, given.seed, inputs, seconds))
        print("\n".join(outcomes[-1].lines()), flush=True)
    return _summed(outcomes)


def _summed(outcomes: list[Outcome]) -> int:
    tried = sum(outcome.tried for outcome in outcomes)
    failed = sum(len(ids) for outcome in outcomes for ids in outcome.failures.values())
    print(f"{tried:,} inputs tried over {len(outcomes)} readers, {failed} failures")
    return int(failed > 0)


def _replay(ident: str, keep: Path | None) -> int:
    name, seed, number = ident.split(":")
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(TARGETS[name], Path(folder), limits=False)
        files = reader.files(int(seed), int(number))
        place = keep or Path(folder) / "again"
        write_files(files, place)
        print(f"{ident}: {', '.join(f'{n} ({len(d):,} bytes)' for n, d in files.items())}")
        print(reader.outcome(files))
        TARGETS[name].read(place)
    return 0


sys.exit(main())
