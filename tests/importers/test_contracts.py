"""Which file a model is, and where its contract comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from efquantface.contract import ASSUMED, METADATA_KEY, FaceContract
from efquantface.errors import ContractError, ModelFileError
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.contracts import find_contract, onnx_contract, resolve
from efquantface.importers.load import load_model
from efquantface.importers.onnx.facts import OnnxFacts

FACTS = OnnxFacts(112, 112, 64, "data", "fc1", (0.0, 1.0), (), {})
PATH = Path("m.onnx")


def test_names_folders_and_files(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"nowhere.onnx: no such file.*dlib-resnet"):
        resolve(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelFileError, match=r"no student\.safetensors"):
        resolve(tmp_path)
    (tmp_path / "student.safetensors").touch()
    assert resolve(str(tmp_path)) == tmp_path / "student.safetensors"
    assert resolve(tmp_path / "student.safetensors") == tmp_path / "student.safetensors"


def test_who_is_believed_first() -> None:
    stored = FaceContract(112, 112, 64, "BGR", template="dlib150", input_name="data")
    told = replace(FACTS, front=(127.5, 128.0), metadata={METADATA_KEY: stored.to_json()})
    declared = FaceContract(112, 112, 64, mean=(1, 2, 3))
    found, notes = find_contract(told, PATH, declared, "adaface")
    assert (found, notes) == (replace(declared, input_name="data", output_name="fc1"), [])
    assert find_contract(told, PATH, None, "adaface")[0].source == "--preprocess adaface"
    assert find_contract(told, PATH, None, None) == (stored, [])
    baked, notes = find_contract(replace(told, metadata={}), PATH, None, None)
    assert baked.is_raw_pixels
    assert notes == ["preprocessing is in the graph: (x - 127.5) / 128 on pixels 0..255"]
    assumed, notes = find_contract(FACTS, PATH, None, None)
    assert assumed.source == ASSUMED
    assert "--preprocess" in notes[0]
    with pytest.raises(ContractError, match=r"m\.onnx: embeddings have 64 values.* says 128"):
        find_contract(FACTS, PATH, replace(declared, embedding_size=128), None)


def test_contract_of_the_written_file(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    write_onnx(load_model(network, contract=contract), tmp_path / "m.onnx")
    assert onnx_contract(tmp_path / "m.onnx") == load_model(tmp_path / "m.onnx").contract
    with pytest.raises(ContractError, match=r"n\.contract\.json is missing"):
        onnx_contract(tmp_path / "n.xml")
    (tmp_path / "n.contract.json").write_text(contract.to_json())
    assert onnx_contract(tmp_path / "n.xml") == contract
