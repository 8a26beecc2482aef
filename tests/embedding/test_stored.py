"""Files of embeddings: what is written is what is read, by us and by the libraries alone."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from efquantface.codes import encode
from efquantface.embedding.stored import FORMATS, Arrays, digest, read, write
from efquantface.errors import DataError
from people import people


def parts(kind: str, sizes: tuple[int, ...] = (3, 0, 5)) -> list[Arrays]:
    rows, _ = people(sum(sizes), 1, size=7)
    made, start = [], 0
    for size in sizes:
        part = rows[start : start + size]
        arrays: Arrays = {"embeddings": part}
        if kind == "int8":
            arrays["embeddings"], arrays["scales"] = encode(part)
        arrays["names"] = np.array([f"n\u00e9{'x' * i}" for i in range(start, start + size)], str)
        arrays["identities"] = np.array([""] * size, str)
        made.append(arrays)
        start += size
    return made


def written(path: Path, made: list[Arrays], facts: dict[str, object] | None = None) -> Path:
    stream = io.BytesIO()
    write(path.suffix, stream, made, sum(len(p["names"]) for p in made), facts)
    path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("sizes", [(3, 0, 5), (0,), (1,)])
def test_there_and_back(tmp_path: Path, ending: str, kind: str, sizes: tuple[int, ...]) -> None:
    made, facts = parts(kind, sizes), {"source": "a", "skipped": [["x", "why"]]}
    found = read(written(tmp_path / f"e{ending}", made, facts))
    for name in ("embeddings", *(["scales"] if kind == "int8" else [])):
        wanted = np.concatenate([p[name] for p in made])
        values = getattr(found, name)
        assert values.dtype == wanted.dtype
        np.testing.assert_array_equal(values, wanted)
    assert found.names == [n for p in made for n in p["names"]]
    assert found.identities == [""] * sum(sizes)
    assert found.facts == facts
    assert found.rows.shape == (sum(sizes), 7)
    assert found.digest() == digest(made)


def test_the_libraries_read_it_alone(tmp_path: Path) -> None:
    made = parts("int8")
    rows = np.concatenate([p["embeddings"] for p in made])
    with np.load(written(tmp_path / "e.npz", made), allow_pickle=False) as stored:
        assert sorted(stored.files) == ["embeddings", "identities", "names", "scales"]
        np.testing.assert_array_equal(stored["embeddings"], rows)
    table = pyarrow.parquet.read_table(written(tmp_path / "e.parquet", made))
    assert table.column_names == ["embedding", "scale", "name", "identity"]
    assert table["embedding"].to_pylist() == rows.tolist()


def test_digests_know_content_only() -> None:
    whole = digest(parts("int8", (8,)))
    assert digest(parts("int8")) == whole
    assert digest(parts("float32")) != whole
    for name in ("embeddings", "scales", "names", "identities"):
        other = parts("int8")
        values = other[2][name]
        values[1] = "?" if values.dtype.kind == "U" else values[1] + 1
        assert digest(other) != whole
    two = [{"names": np.array(t)} for t in (["a", "bc"], ["ab", "c"])]
    assert digest(two[:1]) != digest(two[1:])


@pytest.mark.parametrize("ending", FORMATS)
def test_damage_is_an_error(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"e{ending}", parts("float32"))
    data = path.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 9):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match="no whole file of embeddings"):
            read(path)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / f"none{ending}")
    np.savez(tmp_path / "o.npz", embeddings=np.ones((2, 3)), names=["a", "b"], identities=["", ""])
    with pytest.raises(DataError, match="do not belong together"):
        read(tmp_path / "o.npz")


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    path = written(tmp_path / "e.npz", parts("int8"))
    for name in ("embeddings", "scales", "names", "identities"):
        other = tmp_path / "other.npz"
        with zipfile.ZipFile(path) as whole, zipfile.ZipFile(other, "w") as changed:
            for member in whole.namelist():
                data = whole.read(member)
                changed.writestr(member, b"no array" if member.startswith(name) else data)
        with pytest.raises(DataError, match=r"other\.npz: no file of embeddings"):
            read(other)
