"""What is said, where it goes, and how long it says the rest will take."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from efquantface.callbacks import Callback
from efquantface.console import Console, Stages, set_verbosity

TRICKY = ("[/bold] closes nothing", "[red]not red[/red]", "photos/[2024]/a.png", ":smile: [/]")


@pytest.fixture(autouse=True)
def _normal_again() -> Iterator[None]:
    yield
    set_verbosity(0)


def recorded(console: Console) -> Console:
    console.rich = RichConsole(
        record=True, quiet=console.rich.quiet, markup=False, emoji=False, soft_wrap=True, width=200
    )
    return console


@pytest.mark.parametrize("text", TRICKY)
def test_users_text_is_printed_as_it_is(text: str, tmp_path: Path) -> None:
    console = recorded(Console())
    console.log_to(tmp_path / "log.txt")
    console.log(text)
    console.warn(text)
    with console.bar(text) as advance:
        advance(1, 2, text)
    shown = console.rich.export_text()
    assert shown.count(text) >= 3
    assert f"warning: {text}" in shown
    written = (tmp_path / "log.txt").read_text().splitlines()
    assert written[0].endswith(f" {text}")
    assert written[2].endswith(f" {text}: 1 of 2 {text}")


def test_sentences_go_to_logging_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "efquantface"):
        console = Console(quiet=True)
        console.log("100 % said")
        console.warn("careful")
        console.detail("by the way")
    found = [(r.name, r.levelname, r.getMessage()) for r in caplog.records]
    assert found == [
        ("efquantface", "INFO", "100 % said"),
        ("efquantface", "WARNING", "careful"),
        ("efquantface", "DEBUG", "by the way"),
    ]


def test_nobody_listens_nothing_is_doubled(capsys: pytest.CaptureFixture[str]) -> None:
    Console().warn("careful")
    out, err = capsys.readouterr()
    assert (out + err).count("careful") == 1


@pytest.mark.parametrize(("level", "seen"), [(-1, ""), (0, "a"), (1, "ab")])
def test_verbosity(level: int, seen: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_verbosity(level)
    console = Console()
    console.log("sentence a")
    console.detail("detail b")
    out = capsys.readouterr().out
    assert "".join(c for c in "ab" if f" {c}\n" in out) == seen


def test_verbosity_is_checked_and_quiet_wins(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="verbosity 7"):
        set_verbosity(7)
    set_verbosity(1)
    Console(quiet=True).log("not seen")
    assert capsys.readouterr().out == ""


def test_callbacks_are_told() -> None:
    told: list[object] = []

    class Told(Callback):
        def on_stage(self, name: str, done: int, total: int) -> None:
            told.append((name, done, total))

        def on_step(self, step: int, total: int, loss: float) -> None:
            told.append((step, total, loss))

        def on_metrics(self, name: str, values: object) -> None:
            told.append((name, values))

    console = Console(quiet=True, callbacks=[Told(), Callback()])
    with console.bar("work") as advance:
        advance(1, 3)
    console.step(1, 9, 0.5)
    console.metrics("x", {"y": 1.0})
    assert told == [("work", 1, 3), (1, 9, 0.5), ("x", {"y": 1.0})]


def test_stages_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    console = recorded(Console())
    console.stages.names = ("read", "train", "report")
    with console.stage("train"), console.bar("steps") as advance:
        advance(2, 2)
    assert "2/3 steps" in console.rich.export_text()


def test_time_left_is_of_the_whole_run() -> None:
    stages = Stages()
    assert stages.left(5.0) == 5.0  # no stages: what the bar says
    stages.names = ("embed", "train", "evaluate", "speed")
    stages.expected = {"embed": 100.0, "evaluate": 40.0, "speed": 12.0}
    stages.enter("embed")
    assert stages.left(5.0) is None  # nobody knows how long training takes
    stages.enter("train")
    assert stages.left(None) is None
    assert stages.left(300.0) == pytest.approx(352.0)
    stages.enter("evaluate")
    assert stages.left(None) == pytest.approx(52.0, abs=1.0)  # this stage's own expectation
    assert stages.left(90.0) == pytest.approx(102.0)  # the bar knows better
    stages.enter("speed")
    assert stages.left(3.0) == pytest.approx(12.0, abs=1.0)
