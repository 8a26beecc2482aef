"""Galleries: overhead over one process, two workers, Ray, a killed worker, and 100 million on paper.

    pip install 'efquantface[ray]'
    python benchmarks/galleries.py --faces ../shared/data/faces6k --teacher ../shared/weights/y1.onnx \
        --student RUN/student.onnx --out runs/galleries --counts 2000 50000

Crops are those of FACES, repeated, as WebDataset tars. "One process" is a loop that opens the
model once,
decodes and embeds, and keeps nothing. Each way runs in processes of its own with one thread, in
the order of
the table; times hold starting and importing. Two ways that should give the same outputs are
compared digest by digest. Rows: benchmarks/results/galleries.jsonl; outputs are removed.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from efquantface.data.source import find_images
from efquantface.embedding import stored
from efquantface.runtime.environment import environment
from runner import rows
from runner.command import command_line

MILLION, PLANNED = 1_000_000, 100_000_000
LOOP = """
import sys
from pathlib import Path
import numpy as np
from efquantface import Embedder
from efquantface.data.faces import load, open_source
embedder = Embedder.open(sys.argv[1], threads=1)
count = 0
for path in sys.argv[2:]:
    source = open_source(Path(path))
    for start in range(0, len(source), 2048):
        index = np.arange(start, min(start + 2048, len(source)))
        count += len(embedder.embed(load(source, embedder.contract, index).images))
print(count)
"""


def make_shards(images: list[bytes], count: int, size: int, folder: Path) -> list[Path]:
    """Tars of ``size`` crops; images repeated until there are enough."""
    folder.mkdir(parents=True)
    made = []
    for start in range(0, count, size):
        path = folder / f"{start // size:05d}.tar"
        with tarfile.open(path, "w") as archive:
            for number in range(start, min(start + size, count)):
                data = images[number % len(images)]
                member = tarfile.TarInfo(f"{number:09d}.jpg")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        made.append(path)
    return made


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """A process with one thread for everything."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)


def timed(*commands: list[str]) -> float:
    """Seconds until all of the commands, begun together, have ended."""
    began = time.perf_counter()
    running = [start(command) for command in commands]
    if any(process.wait() for process in running):
        raise SystemExit(f"failed: {commands}")
    return time.perf_counter() - began


def embed(model: Path, shards: list[Path], out: Path, *words: str) -> list[str]:
    """``efq embed`` of shards."""
    names = [str(path) for path in shards]
    command = [sys.executable, "-m", "efquantface", "embed", str(model), *names, "-o", str(out)]
    return [*command, "--threads", "1", "-q", *words]


def killed(model: Path, shards: list[Path], out: Path) -> tuple[int, int]:
    """Two workers, one killed once a third of the outputs are there; then both begun again.

    Returns:
        Outputs that were there at the kill, and files that were left half written.
    """
    running = [start(embed(model, shards, out, "--shard", f"{i}/2")) for i in (1, 2)]
    while len(list(out.glob("*.npz"))) * 3 < len(shards):
        time.sleep(0.05)
        if all(process.poll() is not None for process in running):
            break
    running[0].send_signal(signal.SIGKILL)
    there = len(list(out.glob("*.npz")))
    running[0].wait()
    half = len(list(out.glob("*.partial")))
    running[1].wait()
    timed(*(embed(model, shards, out, "--shard", f"{i}/2") for i in (1, 2)))
    return there, half


def checked(out: Path, shards: list[Path], count: int) -> list[str]:
    """Digests of the outputs, where every face is there once.

    Raises:
        SystemExit: one is missing or twice.
    """
    names: list[str] = []
    digests = []
    for shard in shards:
        found = stored.read(out / f"{shard.name}.npz")
        if found.digest() != found.facts["sha256"]:
            raise SystemExit(f"{shard.name}: damaged")
        names += [name.partition("#")[2] for name in found.names]
        digests.append(found.digest())
    if sorted(names) != [f"{i:09d}" for i in range(count)]:
        raise SystemExit(f"{out}: {len(names)} faces, {len(set(names))} different, {count} wanted")
    return digests


def measure(args: argparse.Namespace, images: list[bytes], count: int) -> list[dict]:
    """Every way for so many crops."""
    work = args.out / f"work_{count}"
    shutil.rmtree(work, ignore_errors=True)
    size = max(1, min(1000, count // 8))
    shards = make_shards(images, count, size, work / "shards")
    names = [str(path) for path in shards]
    found: list[dict] = []

    def add(way: str, seconds: float, note: str = "") -> None:
        base = found[0]["seconds"] if found else seconds
        row = {"crops": count, "shards": len(shards), "way": way, "seconds": seconds}
        found.append(
            {**row, "faces_a_second": count / seconds, "times": seconds / base, "note": note}
        )
        print(f"{count:,} crops, {way}: {seconds:.1f} s {note}", flush=True)

    loop = [sys.executable, "-c", LOOP, str(args.student), *names]
    add("one process, a loop", timed(loop))
    one = work / "one"
    add("efq embed", timed(embed(args.student, shards, one)))
    wanted = checked(one, shards, count)
    add("efq embed again, all done", timed(embed(args.student, shards, one)))
    add(
        "efq embed --embedding int8",
        timed(embed(args.student, shards, work / "int8", "--embedding", "int8")),
    )
    two = work / "two"
    halves = [embed(args.student, shards, two, "--shard", f"{i}/{args.workers}")
              for i in range(1, args.workers + 1)]  # fmt: skip
    add(f"{args.workers} workers, --shard I/{args.workers}", timed(*halves))
    same = checked(two, shards, count) == wanted
    found[-1]["note"] = f"outputs {'the same' if same else 'DIFFER'}"
    if not args.no_ray:
        out = work / "ray"
        seconds = timed(embed(args.student, shards, out, "--ray", str(args.workers)))
        same = checked(out, shards, count) == wanted
        add(f"--ray {args.workers}", seconds, f"outputs {'the same' if same else 'DIFFER'}")
    began = time.perf_counter()
    there, half = killed(args.student, shards, work / "killed")
    same = checked(work / "killed", shards, count) == wanted
    note = f"killed with {there} of {len(shards)} outputs there, {half} half written; "
    add(
        "2 workers, one killed, begun again",
        time.perf_counter() - began,
        note + f"every face once, outputs {'the same' if same else 'DIFFER'}",
    )
    sizes = {}
    for kind, folder in (("float32", one), ("int8", work / "int8")):
        sizes[kind] = sum(p.stat().st_size for p in folder.glob("*.npz")) / count
    sizes["crops"] = sum(p.stat().st_size for p in shards) / count
    found[-1]["bytes_a_face"] = sizes
    began = time.perf_counter()
    few = shards[: max(1, len(shards) // 4)]
    timed(embed(args.teacher, few, work / "float"))
    faces = sum(len(stored.read(work / "float" / f"{p.name}.npz")) for p in few)
    found[-1]["teacher_faces_a_second"] = faces / (time.perf_counter() - began)
    shutil.rmtree(work)
    return found


def plan(args: argparse.Namespace, found: list[dict]) -> list[str]:
    """100 million faces, from the numbers of the largest count."""
    largest = [row for row in found if row["crops"] == max(args.counts)]
    by_way = {row["way"]: row for row in largest}
    rates = {
        "float": largest[-1]["teacher_faces_a_second"],
        "W8A8": by_way["efq embed"]["faces_a_second"],
    }
    sizes = largest[-1]["bytes_a_face"]
    several = by_way[f"{args.workers} workers, --shard I/{args.workers}"]
    scaling = several["faces_a_second"] / by_way["efq embed"]["faces_a_second"] / args.workers
    lines = [
        f"Two workers run at {scaling:.0%} of twice one; the plan takes that for all cores. A "
        "core-hour at "
        f"{args.price:g} USD; {args.cores} cores.",
        "",
        f"| {PLANNED // MILLION} million faces | faces a second and core | core-hours | hours on "
        f"{args.cores} cores | USD a million faces |",
        "|---|---|---|---|---|",
    ]
    for name, rate in rates.items():
        hours = PLANNED / (rate * scaling) / 3600
        cost = hours * args.price / (PLANNED / MILLION)
        lines.append(
            f"| {name} | {rate:.0f} | {hours:,.0f} | {hours / args.cores:,.1f} | {cost:.3f} |"
        )
    lines += ["", "| stored | bytes a face | 100 million, GB |", "|---|---|---|"]
    lines += [
        f"| {name} | {size:,.0f} | {size * PLANNED / 1e9:,.0f} |"
        for name, size in (
            ("crops in tars", sizes["crops"]),
            ("embeddings, float32", sizes["float32"]),
            ("embeddings, int8", sizes["int8"]),
        )
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=Path, required=True, help="folder of crops, to be repeated")
    parser.add_argument("--teacher", type=Path, required=True, help="float ONNX file, for the plan")
    parser.add_argument("--student", type=Path, required=True, help="ONNX file that is measured")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 50_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--cores", type=int, default=64, help="of the plan")
    parser.add_argument("--price", type=float, default=0.04, help="USD a core-hour, of the plan")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    paths = find_images(args.faces)[: max(args.counts)]
    images = [path.read_bytes() for path in paths]
    found = [row for count in args.counts for row in measure(args, images, count)]
    for row in found:
        name = f"{row['crops']} crops, {row['way']}"
        rows.keep("galleries", {**rows.stamp(), "name": name, **row})
    env = environment()
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {env['processor']}, ONNX Runtime "
        f"{env['packages']['onnxruntime']}; `{command_line()}`",
        "",
        "| crops | way | seconds | faces a second | times the loop | |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['crops']:,} | {r['way']} | {r['seconds']:.1f} | {r['faces_a_second']:,.0f} | "
        f"{r['times']:.2f} | {r['note']} |"
        for r in found
    ]
    lines += ["", *plan(args, found), ""]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
