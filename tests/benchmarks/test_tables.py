"""Tables from a few rows: marks, means, what was not recorded; a page that was edited by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.runner import page, plots, readme, rows
from benchmarks.runner.bounds import Bound
from benchmarks.runner.groups import MARK, NOT_RECORDED, grouped
from benchmarks.runner.page import PageError, differences, rendered
from benchmarks.runner.suites import BITS, cells
from benchmarks.runner.tables import by_bits, pruning, speed_of

TODAY = {(c.network, c.name): c.digest for c in cells("bits")}


def row(name: str, seed: int, loss: float, network: str = "y1", **more: Any) -> rows.Row:
    numbers = [0.98, 0.98 - loss, loss, loss - 0.001, loss + 0.001]
    return {
        "commit": "abc1234",
        "commit_is": rows.MADE,
        "date": "2026-11-28",
        "processor": "AMD EPYC (avx2, avx512_vnni)",
        "packages": {"onnxruntime": "1.32.0"},
        "command": None,
        "recipe": TODAY[network, name],
        "network": network,
        "name": name,
        "seed": seed,
        "faces": "union",
        "mb": 1.16,
        "lfw": {"flags": "flip off", "cosine": 0.997, "1e-4": numbers, "1e-5": numbers},
        **more,
    }


def test_seeds_are_one_line_with_their_mean() -> None:
    (group,) = grouped("bits", [row("w8a8", 0, 0.001), row("w8a8", 1, 0.003)])
    assert group.loss("1e-4") == "+0.20 [+0.10, +0.30]"
    assert group.label == "y1, w8a8"


def test_one_seed_shows_its_interval() -> None:
    (group,) = grouped("bits", [row("w8a8", 0, 0.002)])
    assert group.loss("1e-4") == "+0.20 [+0.10, +0.30]"
    assert group.losses("1e-4") == [pytest.approx(0.2)]


@pytest.mark.parametrize("recipe", [None, "000000000000"])
def test_another_recipe_is_marked(recipe: str | None) -> None:
    (group,) = grouped("bits", [row("w8a8", 0, 0.001, recipe=recipe)])
    assert group.label == f"y1, w8a8 {MARK}"


def test_a_row_without_a_cell_is_marked() -> None:
    (group,) = grouped("bits", [{**row("w8a8", 0, 0.001), "name": "w5a8"}])
    assert group.marked


def test_rows_of_todays_recipe_replace_older_ones() -> None:
    old, new = row("w8a8", 0, 0.009, recipe=None), row("w8a8", 1, 0.001)
    elsewhere = row("w8a8", 0, 0.009, recipe=None, faces="other")
    (group,) = grouped("bits", [old, elsewhere, new])
    assert not group.marked
    assert group.losses("1e-4") == [pytest.approx(0.1)]


def test_two_training_sets_stand_side_by_side() -> None:
    first = row("w8a8", 0, 0.009, date="2026-11-28", images=6086)
    more = {"date": "2026-11-29", "faces": "mine"}
    last = [row("w8a8", s, 0.001, images=n, **more) for s, n in enumerate((11_300, 11_400))]
    for found in ([first, *last], [*last, first]):
        labels = [group.label for group in grouped("bits", found)]
        assert labels == ["y1, w8a8, on 11,350 images of mine", "y1, w8a8"]


def test_of_old_rows_those_count_that_were_measured_last() -> None:
    first = row("w8a8", 0, 0.009, recipe=None, date="2026-11-28")
    last = row("w8a8", 0, 0.001, recipe=None, date="2026-11-29", faces="mine")
    for found in ([first, last], [last, first]):
        (group,) = grouped("bits", found)
        assert group.label == f"y1, w8a8, on mine {MARK}"


def test_a_peer_has_no_recipe_to_be_marked_for() -> None:
    peer = {**row("w8a8", 0, 0.1), "name": "NNCF", "seed": None, "recipe": None}
    (group,) = grouped("peers", [peer])
    assert not group.marked


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    found = [row(bits, 0, 0.001 * at, recipe=None) for at, bits in enumerate(BITS)]
    del found[0]["mb"]
    rows.write("bits", found)
    text = by_bits()
    (line,) = [line for line in text.splitlines() if line.startswith("| y1, w8a8")]
    assert line.split(" | ")[0] == f"| y1, w8a8 {MARK}"
    # epochs, TAR@1e-3 of the pairs, megabytes and two speeds
    assert line.count(NOT_RECORDED) == 5
    assert "made by abc1234" in text
    assert "2026-11-28" in text
    assert "AMD EPYC with VNNI" in text


def test_the_verdict_has_the_rows_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    rows.write("bits", [row(bits, 0, 0.01 * (at + 1)) for at, bits in enumerate(BITS)])
    assert "at most 2.00 points" in by_bits().splitlines()[0]
    rows.write("bits", [row(bits, 0, 0.01) for bits in BITS[:-1]])
    with pytest.raises(LookupError, match="w4a4"):
        by_bits()


def test_a_second_set_has_a_column(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    found = [row(bits, 0, 0.001) for bits in BITS]
    rows.write("bits", found)
    rows.write("pruning", [{**found[0], "name": f"{n}% w8a8"} for n in (25, 50)])
    assert "second set" not in by_bits() + pruning()
    judge = {"set": "mine", "1e-4": [0.9, 0.85, 0.05, 0.04, 0.06]}
    rows.write("bits", [{**found[0], "judge": judge}, *found[1:]])
    for table in (by_bits, pruning):
        assert "| second set, 1e-4 |" in table()
        assert "| +5.00 [+4.00, +6.00] |" in table()


def test_speed_is_that_of_the_same_bits_and_of_nothing_else() -> None:
    ms = {"onnxruntime": {"1": {"float": 6.0, "student": 3.0, "user": 12.0}}}
    untrained = row("w8a8 untrained", 0, 0.001, speed=ms)
    pool = grouped("bits", [row("w8a8", 0, 0.001), untrained, row("w6a8", 0, 0.001)])
    named = {group.name: group for group in pool}
    assert speed_of(named["w8a8"], pool, "onnxruntime") == 2.0
    assert speed_of(named["w8a8"], pool, "onnxruntime", against="user") == 4.0
    assert speed_of(named["w6a8"], pool, "onnxruntime") is None
    assert speed_of(named["w8a8"], pool, "openvino") is None


@pytest.mark.parametrize(
    ("limits", "measured", "unit", "least", "kept"),
    [
        ((0.1, 0.2), (0.1, 0.2), "", False, True),
        ((0.1, 0.2), (0.0, 0.21), "", False, False),
        ((0.1,), (0.1049,), "", False, True),  # 0.10 in the digits that are shown
        ((2.5,), (2.4,), "x", True, False),
        ((0.9995,), (0.9972,), "cosine", True, False),
    ],
)
def test_a_bound_is_kept_by_every_value(
    limits: tuple[float, ...], measured: tuple[float, ...], unit: str, least: bool, kept: bool
) -> None:
    assert Bound("it", limits, measured, unit, least).kept == kept


PAGE = """# Results

<!-- begin a -->
old
<!-- end a -->

by hand

<!-- begin b -->
<!-- end b -->
"""


def test_only_what_stands_between_markers_is_made() -> None:
    text = rendered(PAGE, {"a": "| 1 |", "b": "| 2 \\1 |"})
    assert text.startswith("# Results\n\n<!-- begin a -->\n| 1 |\n<!-- end a -->\n\nby hand\n")
    assert "| 2 \\1 |" in text
    assert rendered(text, {"a": "| 1 |", "b": "| 2 \\1 |"}) == text


def test_an_edit_by_hand_is_found() -> None:
    blocks = {"a": "| 1 |", "b": "| 2 |"}
    text = rendered(PAGE, blocks)
    assert differences(text, blocks) == []
    assert differences(text.replace("by hand", "by another hand"), blocks) == []
    assert differences(text.replace("| 2 |", "| 3 |"), blocks) == ["b"]


@pytest.mark.parametrize("blocks", [{"a": ""}, {"a": "", "b": "", "c": ""}])
def test_markers_and_tables_are_the_same(blocks: dict[str, str]) -> None:
    with pytest.raises(PageError):
        rendered(PAGE, blocks)


@pytest.mark.parametrize("made", page.PAGES, ids=lambda p: p.path.name)
def test_the_check_fails_where_a_page_was_edited(
    made: page.Page, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / made.path.name
    text = made.path.read_text(encoding="utf-8")
    copy.write_text(text, encoding="utf-8")
    copies = [replace(made, path=copy)]
    assert page.main(True, copies) == 0
    copy.write_text(text.replace("| y1, ", "| y2, ", 1), encoding="utf-8")
    assert page.main(True, copies) == 1
    assert "the block bits is not what the rows make" in capsys.readouterr().out
    copy.write_text(text + "\n" * made.most_lines, encoding="utf-8")
    assert page.main(True, copies) == 1
    assert f"at most {made.most_lines}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["bits.png", "readme.svg"])
def test_a_picture_of_other_rows_is_stale(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plot = plots.PLOTS[name]
    monkeypatch.setattr(plots, "PLOTS", {name: plot})
    assert plots.stale(tmp_path) == [tmp_path / name]
    plots.draw(tmp_path)
    assert plots.stale(tmp_path) == []
    fewer = replace(plot, points=lambda: plot.points()[1:])
    monkeypatch.setattr(plots, "PLOTS", {name: fewer})
    assert plots.stale(tmp_path) == [tmp_path / name]


def test_the_readmes_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    ms = {"onnxruntime": {"1": {"float": 6.0, "student": 3.0, "user": 12.0}}}
    cells = [(network, bits) for network in readme.NETWORKS for bits in readme.BITS]
    found = [row(bits, 0, 0.001 * at, network) for at, (network, bits) in enumerate(cells)]
    found[0] |= {"speed": ms, "speed_on": "AMD EPYC (avx2, avx512_vnni)"}
    found[1] |= {"speed": ms, "speed_on": "AMD EPYC (avx2, fma)"}
    rows.write("bits", found)
    lines = readme.by_bits().splitlines()
    assert lines[2].endswith("| W8A8 | 0.00 | 0.00 | 1.16 | 2.0x | – |")  # noqa: RUF001
    assert lines[3].endswith("|  | W6A8 | 0.10 | 0.10 | 1.16 | – | 2.0x |")  # noqa: RUF001
    assert "y1's own file takes 2.0 times as long" in lines[-1]
    assert "recipe" not in lines[-1]
    rows.write("bits", [{**found[0], "recipe": None}, *found[1:]])
    assert "1 of 9 rows are of another recipe" in readme.by_bits()
    rows.write("bits", found[1:])
    with pytest.raises(LookupError, match="y1, w8a8"):
        readme.by_bits()


@pytest.mark.parametrize("path", sorted(rows.RESULTS.glob("*.jsonl")), ids=lambda p: p.stem)
def test_every_row_says_where_it_is_from(path: Path) -> None:
    found = rows.read(path.stem)
    assert found
    assert len({rows.key_of(row) for row in found}) == len(found)
    for one in found:
        assert {"commit", "commit_is", "date", "processor", "packages", "command"} <= set(one)
        assert one["commit"]
