"""Our reader of ``.tflite``: what our writer wrote, by LiteRT's own schema; damage is a typed error."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import flatbuffers
import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from conftest import SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.embedding.embedder import Embedder
from efquantface.errors import ContractError, EfqError, ModelFileError, RuntimeMissingError
from efquantface.formats.litert.model import to_litert
from efquantface.runtime.litert import Interpreter, run_litert
from efquantface.runtime.litert_file import (
    DIGEST_KEY,
    litert_contract,
    parse,
    read_checked,
    with_outputs,
)
from litert_files import LiteRtFile
from students import student_of


@pytest.fixture
def data(network: nn.Module, contract: FaceContract) -> bytes:
    return to_litert(student_of(network, contract)[1])


def test_it_reads_what_the_schema_reads(data: bytes) -> None:
    model, right = parse(data, "made"), LiteRtFile(data)
    assert len(model.operations) == len(right.graph.operators)
    assert model.ends == (right.graph.inputs[0], right.graph.outputs[0])
    for own, tensor in zip(model.tensors, right.graph.tensors, strict=True):
        assert (own.name, own.shape, own.type) == (
            (tensor.name or b"").decode(),
            tuple(tensor.shape),
            tensor.type,
        )
        if tensor.quantization is not None:
            np.testing.assert_array_equal(np.float32(own.scales), tensor.quantization.scale)
            assert own.zero_points == tuple(tensor.quantization.zeroPoint)
        if own.data is not None:
            assert data[slice(*own.data)] == bytes(right.model.buffers[tensor.buffer].data)
    for own, operator in zip(model.operations, right.graph.operators, strict=True):
        assert (own.inputs, own.output) == (tuple(operator.inputs), operator.outputs[0])
        assert own.code == right.model.operatorCodes[operator.opcodeIndex].builtinCode


def test_constants_are_aligned(data: bytes) -> None:
    """Runtimes read constants where they lie."""
    places = [t.data[0] for t in parse(data, "made").tensors if t.data is not None]
    assert len(places) > 10
    assert not any(place % 16 for place in places)


def test_other_outputs(data: bytes, contract: FaceContract) -> None:
    """The list of outputs is another one, all else is as it was."""
    model = parse(data, "made")
    place = model.names()["stem_0_q"]
    changed = with_outputs(data, model, (model.ends[1], place))
    x = contract.normalize(make_faces().images[:3])
    rows, codes = Interpreter(changed, "made")(x)
    assert (rows == Interpreter(data, "made")(x)[0]).all()
    assert codes.shape == (3, *model.tensors[place].shape[1:])
    assert list(LiteRtFile(changed).graph.outputs) == [model.ends[1], place]


def test_damage_is_a_typed_error_or_none(data: bytes, tmp_path: Path) -> None:
    """Any byte changed: never another exception, and never a file that is taken for whole."""
    draw, path = Random(0), tmp_path / "m.tflite"
    for number in range(600):
        changed = bytearray(data)
        if number % 3 == 0:
            del changed[draw.randrange(len(changed)) :]
        for _ in range(draw.choice((1, 2, 8))):
            if changed:
                at = draw.randrange(min(len(changed), 4000) if number % 2 else len(changed))
                changed[at] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        if bytes(changed) == data:
            continue
        with pytest.raises(EfqError, match=r"m\.tflite"):
            litert_contract(path)


@pytest.mark.parametrize("where", ["head", "count", "shape", "tensor"])
def test_offsets_out_of_the_file(data: bytes, where: str) -> None:
    file = LiteRtFile(data)
    if where == "head":
        broken = struct.pack("<I", len(data) - 2) + data[4:]
    elif where == "count":
        model = parse(data, "made")
        at = model.outputs_field + struct.unpack_from("<I", data, model.outputs_field)[0]
        broken = data[:at] + struct.pack("<I", 1 << 30) + data[at + 4 :]
    else:
        if where == "shape":
            file.graph.tensors[2].shape = np.array([1 << 30, 1 << 30], np.int32)
        else:
            file.graph.operators[1].inputs = [9999]
        builder = flatbuffers.Builder(0)
        builder.Finish(file.model.Pack(builder), file_identifier=b"TFL3")
        broken = bytes(builder.Output())
    with pytest.raises(ModelFileError, match=r"bad\.tflite: is damaged"):
        parse(broken, "bad.tflite")


def test_files_of_others_are_refused_with_a_way_out(data: bytes, tmp_path: Path) -> None:
    file, path = LiteRtFile(data), tmp_path / "theirs.tflite"
    file.model.metadata = [m for m in file.model.metadata if m.name != DIGEST_KEY.encode()]
    builder = flatbuffers.Builder(0)
    builder.Finish(file.model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(ModelFileError, match="not written by efq export; convert it to ONNX"):
        Embedder.open(path)
    file.model.signatureDefs = [schema.SignatureDefT()]
    builder = flatbuffers.Builder(0)
    builder.Finish(file.model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(ModelFileError, match="no file of efq export"):
        Embedder.open(path)


def test_a_contract_that_does_not_fit_the_tensors(data: bytes, tmp_path: Path) -> None:
    file, path = LiteRtFile(data), tmp_path / "m.tflite"
    file.contract(embedding_size=17)
    path.write_bytes(file.bytes())
    with pytest.raises(ContractError, match="its contract says"):
        litert_contract(path)


def test_a_device_that_litert_is_not_on(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    with pytest.raises(RuntimeMissingError, match="cpu"):
        run_litert(path, device="cuda")
    assert read_checked(path)[0] == data


def test_batches_of_any_size(data: bytes, tmp_path: Path, contract: FaceContract) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    run, x = run_litert(path, 1), contract.normalize(make_faces().images[:8])
    whole = run(x)
    one_by_one = np.concatenate([run(x[i : i + 1]) for i in range(8)])
    assert (whole == one_by_one).all()
    assert (run(x[:3]) == whole[:3]).all()


def test_whole_is_told_from_several_parts(data: bytes, contract: FaceContract) -> None:
    """A bias without scales is none that XNNPACK takes."""
    assert Interpreter(data, "made").is_whole()
    assert not Interpreter(data, "made", builtin=True).is_whole()
    torch.manual_seed(0)
    file = LiteRtFile(to_litert(student_of(randomize(SmallFaceNet()), contract)[1]))
    file.operand(file.maker("tail_q"), 2).quantization = None
    assert not Interpreter(file.bytes(), "made").is_whole()
