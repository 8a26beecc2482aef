"""The checked union and the people to judge by, from folders made here."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.runner import sets


def _people(root: Path, images: dict[str, int]) -> None:
    for name, count in images.items():
        for number in range(count):
            path = root / name / f"{name}_{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")


def test_nobody_is_in_both_and_nothing_listed_is_in_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, out = tmp_path / "shared", tmp_path / "out"
    _people(shared / "data" / "extra", {"a": 3, "b": 1, "c": 2, "d": 1})
    _people(shared / "data" / "faces6k", {"e": 2, "f": 2})

    def check(faces: Path, output: Path, **_: object) -> None:
        output.write_text("# images\n../shared/data/extra/a/a_0.jpg\tshared\n", encoding="utf-8")

    monkeypatch.setattr(sets, "check_faces", check)
    monkeypatch.setattr(sets, "_held_out", lambda *_: {"f"})
    monkeypatch.setattr(sets, "JUDGES", 1)
    counts = sets.make_sets(shared, out)
    found = {part: {p.name for p in (out / part).rglob("*.jpg")} for part in ("union", "judge")}
    assert {part: len(names) for part, names in found.items()} == counts
    union, judge = ({name[0] for name in found[part]} for part in ("union", "judge"))
    assert not union & judge
    assert union | judge == set("abcdef")
    assert judge - {"f"} <= {"a", "c"}  # one of extra, of those with several images
    assert "f" in judge
    assert "a_0.jpg" not in found["union"] | found["judge"]
    assert all(p.is_symlink() and p.exists() for p in out.rglob("*.jpg"))
