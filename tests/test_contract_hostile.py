"""Contracts out of files of others: a contract that can be used, or one error with the file's name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efquantface.contract import FaceContract, parse_size
from efquantface.errors import ContractError

PLAIN = asdict(FaceContract(112, 112, 512))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("height", 10**9), ("height", 10**30), ("width", 112.5), ("height", "112"), ("height", True),
        ("width", None), ("embedding_size", 2**40), ("embedding_size", -1), ("mean", "123"),
        ("mean", [1, 2]), ("mean", [1, 2, "3"]), ("mean", [1, 2, 10**400]), ("std", [1, 0, 1]),
        ("std", [[1], 2, 3]), ("std", {"0": 1}), ("mean", [True, 1, 1]), ("color", ["RGB"]),
        ("color", "x" * 10_000), ("template", {}), ("input_name", 3), ("licence", None),
    ],
)  # fmt: skip
def test_values_that_no_contract_has(name: str, value: Any) -> None:
    with pytest.raises(ContractError, match="some file: ") as caught:
        FaceContract.from_json(json.dumps({**PLAIN, name: value}), "some file")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", '"x"', "[" * 5000, '{"mean": ' * 5000, "{}", ""]
)
def test_texts_that_are_no_contract(text: str) -> None:
    with pytest.raises(ContractError, match="some file"):
        FaceContract.from_json(text, "some file")


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(b"\xff\xfe{}")
    for path in (tmp_path / "c.json", tmp_path / "none.json"):
        with pytest.raises(ContractError, match=path.name):
            FaceContract.read(path)


def test_numbers_of_numpy_are_numbers() -> None:
    made = FaceContract(np.int64(112), np.int32(96), np.int64(512), mean=(np.float32(1),) * 3)  # type: ignore[arg-type]
    assert (made.height, made.width) == (112, 96)


@pytest.mark.parametrize("text", ["100000", "9" * 5000, "112x99999", "\u0661\u0661\u0662"])
def test_sizes_that_no_crop_has(text: str) -> None:
    with pytest.raises(ContractError, match="write 160"):
        parse_size(text)
