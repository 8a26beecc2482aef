"""Names in terminal, log, table and page: what they hold is shown, and never obeyed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from efquantface import compress
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.evaluation.sets import EvalSet
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from efquantface.text import plain
from formats import png

NASTY = ["x[/red]", "[bold]x", "a\x1b[31mb", "q\u202egnp", "\udcff", "bell\x07", "<b>&"]


@pytest.mark.parametrize("name", NASTY)
def test_nothing_is_left_that_a_terminal_obeys(name: str) -> None:
    shown = plain(name)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert plain(shown) == shown


def test_what_is_printable_stays() -> None:
    text = "Zoë 顔\tx\ny [/red] $\\alpha$"
    assert plain(text) == text


def test_names_in_a_run(
    tmp_path: Path, network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    sets = [EvalSet(f"[/red]\x1b[2J{name}", faces, None, True) for name in ("a\udcff", "$b_$<i>")]
    done = compress(
        network, faces, tmp_path / "run", contract=contract, epochs=0, quiet=True, cache=False,
        benchmark=False, eval_sets=sets, caveat="\u202e<script>",
    )  # fmt: skip
    page = done.run.report.read_text(encoding="utf-8")
    assert "[/red]\\x1b[2Ja\\udcff" in page
    assert "&lt;script&gt;" in page
    assert not [c for c in page if c in "\x1b\u202e\x07"]
    log = done.run.log.read_text(encoding="utf-8")
    assert "\x1b" not in log
    assert json.loads(done.run.metrics.read_text())["protocols"][0]["protocol"].count("a\udcff")


def efq(*words: bytes, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable.encode(), b"-m", b"efquantface", *words]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, check=False
    )


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("name", [b"x[/red]", b"[bold]x", b"bad\xff", b"esc\x1b[31m"])
def test_names_on_the_command_line(
    name: bytes, encoding: str, tmp_path: Path, network: nn.Module, contract: FaceContract,
    faces: FaceSet,
) -> None:  # fmt: skip
    people = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    for image, person in zip(faces.images, faces.identities, strict=True):
        folder = Path(people) / f"[red]{person}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{len(list(folder.iterdir()))}.png").write_bytes(png(image))
    model = Path(os.fsdecode(b"m" + name + b".onnx"))
    (tmp_path / model).parent.mkdir(exist_ok=True)
    write_onnx(load_model(network, contract=contract), tmp_path / model)
    done = efq(
        b"evaluate", os.fsencode(model), b"--eval", name + b"=" + name,
        cwd=tmp_path, PYTHONIOENCODING=encoding, EFQ_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    said = done.stdout + done.stderr
    if name == b"bad\xff":  # runtimes open names in UTF-8 only
        assert done.returncode == 2, said
        assert b"rename the file" in said
    else:
        assert done.returncode == 0, said
    assert b"Traceback" not in said
    assert b"\x1b" not in said
    assert b"\xff" not in said
    shown = plain(os.fsdecode(name)).encode()
    assert shown in said
