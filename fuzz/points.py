"""SIGKILL at every named point of a run. The run is resumed each time and must give the same student.

    python -m fuzz.points [--share 10]

Points are operations on files (before each, in the middle of each write, after each rename) and calls
of callbacks (stages, steps, metrics). For each point a process is forked and killed there, and its run
is resumed (`--resume`). The student must be the same byte for byte, and no unfinished file may be left.
The network and its faces are small and made here.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")  # forked processes keep no threads

import argparse
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import torch  # noqa: E402

from conftest import SIZE, SmallFaceNet, make_faces, randomize  # noqa: E402
from efquantface import files  # noqa: E402
from efquantface.callbacks import Callback  # noqa: E402
from efquantface.contract import FaceContract  # noqa: E402
from efquantface.errors import FinishedError  # noqa: E402
from efquantface.pipeline.compress import compress  # noqa: E402
from failing_disk import WatchedDisk  # noqa: E402

Point = tuple[str, int]  # its name, and how often it is reached


class Points(Callback):
    """Counts the points that a run reaches, and kills the process at one of them.

    Attributes:
        last: the point of the kill; None for none.
        reached: all points, in order.
    """

    def __init__(self, last: Point | None = None) -> None:
        self.last, self.reached, self._times = last, list[Point](), Counter[str]()

    def reach(self, name: str) -> None:
        self._times[name] += 1
        self.reached.append((name, self._times[name]))
        if self.reached[-1] == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_stage(self, name: str, done: int, total: int) -> None:
        if done == total:  # how often in between depends on time
            self.reach(f"end of {name}")

    def on_step(self, step: int, total: int, loss: float) -> None:
        self.reach("step")

    def on_metrics(self, name: str, values: Mapping[str, float]) -> None:
        self.reach(f"metrics of {name}")


class MortalDisk(WatchedDisk):
    """Reaches a point before each operation, amid each write and after each rename."""

    def __init__(self, points: Points) -> None:
        super().__init__()
        self._points = points

    def before(self, kind: str, path: Path) -> None:
        if kind == "write" or (kind == "folder" and path.is_dir()):
            return
        self._points.reach(f"before {kind} {_plain(path)}")

    def write(self, stream: BinaryIO, data: bytes | memoryview) -> int:
        half = len(data) // 2
        written = super().write(stream, data[:half]) if half else 0
        self._points.reach(f"amid write {_plain(self._paths[id(stream)])}")
        return written + super().write(stream, data[written:])

    def replace(self, temporary: Path, path: Path) -> None:
        super().replace(temporary, path)
        self._points.reach(f"after replace {_plain(path)}")


def _plain(path: Path) -> str:
    """A file's name without the process and thread that write it."""
    return re.sub(r"\.\d+-\d+\.partial$", ".partial", path.name)


def run(folder: Path, points: Points, *, resume: bool = False) -> None:
    """The small run in ``folder``, with its cache beside it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.environ["EFQ_CACHE"] = str(folder / "cache")
    files.disk = MortalDisk(points)
    compress(
        randomize(SmallFaceNet()),
        make_faces(),
        folder / "run",
        contract=FaceContract(height=SIZE, width=SIZE, embedding_size=16, template="unknown"),
        bits="w8a8",
        epochs=2,
        batch_size=16,
        benchmark=False,
        quiet=True,
        resume=resume,
        callbacks=[points],
    )


def forked(work: Callable[[], None]) -> int:
    """The exit status of a child that does ``work``; negative where a signal ended it."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def recorded(folder: Path) -> list[Point]:
    """All points of a run in ``folder``."""

    def work() -> None:
        points = Points()
        run(folder, points)
        (folder / "points").write_text("\n".join(f"{n}\t{t}" for n, t in points.reached))

    if forked(work):
        raise SystemExit("the run without a kill failed")
    rows = (line.split("\t") for line in (folder / "points").read_text().splitlines())
    return [(name, int(times)) for name, times in rows]


def killed(folder: Path, point: Point, wanted: bytes) -> str:
    """What is wrong when a run is killed at ``point`` and resumed; empty where nothing is."""
    if forked(lambda: run(folder, Points(point))) != -signal.SIGKILL:
        return "was not reached"
    begun = (folder / "run" / "recipe.yaml").is_file()

    def go_on() -> None:
        with suppress(FinishedError):  # it was killed when all was done
            run(folder, Points(), resume=begun)

    if forked(go_on):
        return "cannot be resumed"
    if (folder / "run" / "student.onnx").read_bytes() != wanted:
        return "ends with another student"
    names = [path.name for path in (folder / "run").iterdir()]
    left = [name for name in names if "partial" in name or "unchecked" in name]
    return f"{', '.join(left)} is left" if left else ""


def main() -> int:
    """The command line; gives 1 if a point is wrong."""
    told = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    told.add_argument("--share", type=int, default=1, help="try one of so many points")
    share, wrong = told.parse_args().share, 0
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        whole.mkdir()
        points = recorded(whole)
        wanted = (whole / "run" / "student.onnx").read_bytes()
        chosen = points[share // 2 :: share]
        for point in chosen:
            folder = Path(name) / "killed"
            folder.mkdir()
            said = killed(folder, point, wanted)
            wrong += bool(said)
            print(f"{point[0]} ({point[1]}): {said or 'the same student'}", flush=True)
            shutil.rmtree(folder)
    print(f"killed at {len(chosen)} of {len(points)} points, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
