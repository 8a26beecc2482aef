"""Suites and tables.

    python -m benchmarks list
    python -m benchmarks list bits
    python -m benchmarks run bits --shared ../shared --out runs --only "y1/w8a8 seed 0"
    python -m benchmarks run bits --measure          # add speeds to the rows whose runs are in --out
    python -m benchmarks tables                      # docs/results.md and README.md from the rows
    python -m benchmarks tables --check              # fail where that would change something
    python -m benchmarks sets --shared ../shared --out SETS    # a union to train on, people to judge by
    python -m benchmarks predicted                   # what training left of the distance to the teacher

A row that is there, of today's recipe and with every held-out set asked for, is not computed again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.runner.page import main as tables
from benchmarks.runner.predicted import as_text, shares
from benchmarks.runner.suites import SEEDS, SUITES, cells, chosen


def main(words: list[str] | None = None) -> int:
    """Run a command; 1 where a row failed or a check did."""
    args = _parser().parse_args(words)
    if args.command == "tables":
        return tables(args.check)
    if args.command == "predicted":
        print(as_text(shares()))
        return 0
    if args.command == "list":
        for name in [args.suite] if args.suite else SUITES:
            print(f"{name}: {SUITES[name]}")
            for cell in cells(name, args.seeds) if args.suite else []:
                print(f"  {cell.full}  {cell.digest or ''}")
        return 0
    if args.command == "sets":
        from benchmarks.runner.sets import make_sets

        print(make_sets(args.shared, args.out))
        return 0
    from benchmarks.runner.run import Call, run_cells

    names = ("shared", "out", "faces", "judge", "threads", "device", "measure", "quick")
    call = Call(dlib=args.dlib and tuple(args.dlib), **{n: getattr(args, n) for n in names})
    wanted = chosen(cells(args.suite, args.seeds), args.only)
    if not wanted:
        print(f"{args.suite}: no row is named so; python -m benchmarks list {args.suite}")
        return 1
    return int(run_cells(wanted, call) > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listed = commands.add_parser("list", help="suites, or the rows of one")
    listed.add_argument("suite", nargs="?", choices=SUITES)
    run = commands.add_parser("run", help="measure the rows of a suite")
    run.add_argument("suite", choices=SUITES)
    for part in (listed, run):
        part.add_argument("--seeds", type=int, default=SEEDS)
    run.add_argument(
        "--only", action="append", default=[], help='beginning of a row, or "y1/w?a8*"'
    )
    run.add_argument("--shared", type=Path, default=Path("../shared"), help="weights/ and data/")
    run.add_argument("--out", type=Path, default=Path("runs"))
    run.add_argument("--faces", type=Path, help="training set in place of faces6k")
    run.add_argument("--judge", type=Path, help="a second held-out set")
    run.add_argument("--dlib", type=Path, nargs=2, metavar=("FACES", "LFW"), help="dlib's crops")
    run.add_argument("--threads", type=int)
    run.add_argument("--device", default="cpu")
    run.add_argument("--measure", action="store_true", help="only speeds, nothing else running")
    run.add_argument("--quick", action="store_true", help="300 images, one epoch; row in --out")
    made = commands.add_parser("tables", help="make docs/results.md and README.md from the rows")
    made.add_argument("--check", action="store_true", help="change nothing, fail on a difference")
    sets = commands.add_parser("sets", help="a checked union of two sets, and people to judge by")
    sets.add_argument("--shared", type=Path, default=Path("../shared"), help="weights/ and data/")
    sets.add_argument("--out", type=Path, required=True)
    commands.add_parser("predicted", help="what training left of the distance, by its kind")
    return parser


if __name__ == "__main__":
    sys.exit(main())
