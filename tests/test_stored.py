"""Files of ``torch.save``: tensors come back; what would grow, run or is damaged is one error."""

from __future__ import annotations

import io
import random
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from efquantface.errors import ModelFileError
from efquantface.importers.state_dicts import read_dictionaries
from efquantface.stored import HoldsCode, load_stored

WEIGHTS = {f"l{i}.weight": torch.arange(12.0).reshape(3, 4) + i for i in range(5)}


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    tied = OrderedDict(WEIGHTS, again=WEIGHTS["l0.weight"])
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save(
            {"a": tied, "n": [1, 2.5, "x"], "p": torch.nn.Parameter(torch.ones(2))}, path, **options
        )
        found = load_stored(path)
        assert found["n"] == [1, 2.5, "x"]
        assert all(torch.equal(found["a"][k], v) for k, v in tied.items())


def test_small_files_that_unpack_to_much(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    torch.save(WEIGHTS, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data + bytes(40 << 20) if name.endswith("/0") else data)
    with pytest.raises(ModelFileError, match=r"bomb\.pt: not a readable PyTorch.* unpacks to"):
        read_dictionaries(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_that_claim_more_than_there_is(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.pt"
    wide = {f"l{i}": torch.zeros(1).half().expand(50_000, 50_000) for i in range(4)}
    torch.save(wide, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="claim"):
        load_stored(path)


def test_other_kinds_of_tensors(tmp_path: Path) -> None:
    for tensor in (torch.eye(3).to_sparse(), torch.zeros(2, device="meta")):
        torch.save({"a": tensor}, tmp_path / "w.pt")
        with pytest.raises(ValueError, match="another kind"):
            load_stored(tmp_path / "w.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_bytes_by_their_number(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": bytearray(3)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(HoldsCode, match="bytearray"):
        load_stored(path)


def test_members_whose_names_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(WEIGHTS, path)
    data = path.read_bytes()
    table = data.index(b"PK\x01\x02")
    path.write_bytes(data[:table] + data[table:].replace(b"w/data.pkl", b"w/\xff\xfea.pkl"))
    with pytest.raises(ModelFileError, match=r"w\.pt"):
        read_dictionaries(path)


def test_any_damage_is_one_kind_of_error(tmp_path: Path) -> None:
    path, draw = tmp_path / "w.pt", random.Random(0)
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save(WEIGHTS, stream, _use_new_zipfile_serialization=zipped)
        whole = stream.getvalue()
        for _ in range(150):
            data = bytearray(whole)
            for _ in range(draw.choice((1, 2, 6))):
                data[draw.randrange(min(len(data), 900))] = draw.randrange(256)
            path.write_bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
            try:
                said = str(load_stored(path))
            except ValueError as error:
                said = str(error)
            assert said


def test_errors_write_no_storage_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that is called: its numbers would be written into the error one by one."""
    path = tmp_path / "called.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    stored = members[pickled]
    members[pickled] = stored[: stored.index(b"Q") + 1] + b")R."  # BINPERSID, then a call
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    read = []
    monkeypatch.setattr(torch.TypedStorage, "__getitem__", lambda *_: read.append(1) or 0.0)
    with pytest.raises(ValueError, match="Weights only load failed"):
        load_stored(path)
    assert not read
    assert "0.0" in str(torch.zeros(1).storage())  # as before, elsewhere
