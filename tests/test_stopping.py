"""Ctrl-C at any moment: no traceback, exit code 130, and the next call works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import efquantface
from efquantface import stopping

# the program, which is sent a signal when it begins to import a module
PROGRAM = """
import os, signal, sys
class Sends:
    sent = False
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} and not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.{number})
sys.meta_path.insert(0, Sends())
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.argv = ["efq", *sys.argv[1:]]
from efquantface.__main__ import main
main()
"""


def stopped_at(
    module: str, folder: Path, *words: str, number: str = "SIGINT"
) -> subprocess.CompletedProcess[str]:
    source = Path(efquantface.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module, number=number), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("efquantface.cli.main", ["env"]),
        ("typer", ["--help"]),
        ("pydantic.fields", ["--version"]),
        ("rich.panel", ["--help"]),
        ("onnxruntime", ["env"]),
        ("torch", ["models", "list"]),
        ("torch._C", ["models", "list"]),
    ],
)
def test_while_starting(tmp_path: Path, module: str, words: list[str]) -> None:
    done = stopped_at(module, tmp_path, *words)
    assert (done.returncode, done.stderr) == (130, "stopped\n")
    assert "Traceback" not in done.stdout


def test_told_to_end(tmp_path: Path) -> None:
    assert stopped_at("typer", tmp_path, "--help", number="SIGTERM").returncode == 130


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    program = PROGRAM.replace("signal.default_int_handler", "signal.SIG_IGN")
    code = program.format(module="typer", number="SIGINT")
    source = Path(efquantface.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("efquantface ")


def test_both_signals_interrupt_until_work_is_done() -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        stopping.listen()
        assert signal.getsignal(signal.SIGTERM) is stopping._stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.told()
        stopping.finished()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
