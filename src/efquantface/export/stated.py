"""What an exported file says of itself, compared with its student: contract, names, shapes, portability.

A client knows nothing else. With the right integers and another contract it computes other embeddings.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from efquantface.contract import METADATA_KEY, PREPROCESS, FaceContract
from efquantface.errors import ContractError, ParityError
from efquantface.export.onnx_writer import insightface_loader_normalization
from efquantface.export.portability import PORTABLE_KEY, overflowing
from efquantface.graph.model import FaceModel


def read_file(path: Path) -> onnx.ModelProto:
    """Read an exported file.

    Raises:
        ParityError: it cannot be read, or holds no operators.
    """
    try:
        model = onnx.load(str(path))
    except (DecodeError, OSError) as error:
        raise ParityError(f"{path}: cannot be read back ({error})") from None
    if not model.graph.node:
        raise ParityError(f"{path}: cannot be read back (it holds no operators)")
    return model


def contract_of(model: onnx.ModelProto, path: Path) -> FaceContract:
    """The contract that a client finds in a file.

    Raises:
        ParityError: the file has no contract, or one that cannot be read.
    """
    stored = metadata_of(model).get(METADATA_KEY)
    if stored is None:
        raise ParityError(f"{path}: fails the parity check: it holds no face contract")
    try:
        return FaceContract.from_json(stored, str(path))
    except ContractError as error:
        raise ParityError(f"{error}; it fails the parity check") from None


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """A file's metadata."""
    return {entry.key: entry.value for entry in model.metadata_props}


def misstated(model: onnx.ModelProto, found: FaceContract, student: FaceModel) -> list[str]:
    """What the file says and its student does not, one sentence each; empty where they agree.

    Args:
        model: the file.
        found: its contract.
        student: quantized or float.
    """
    said = contract_differences(found, student.contract)
    said += _interface(model, student.contract) + _loaders(model, student.contract)
    if student.quantized:
        right = "no" if overflowing(model) else "yes"
        stored = metadata_of(model).get(PORTABLE_KEY)
        if stored != right:
            said.append(f"its metadata says {PORTABLE_KEY}={stored}, its weights say {right}")
    licence = student.contract.licence
    if licence and metadata_of(model).get("teacher_licence") != licence:
        said.append("its metadata does not hold the teacher's licence")
    return said


def contract_differences(found: FaceContract, right: FaceContract) -> list[str]:
    """Fields in which a stored contract differs from the student's, one sentence each."""
    return [
        f"its contract says {field.name} {theirs!r}, the student's {own!r}"
        for field in fields(right)
        if (theirs := getattr(found, field.name)) != (own := getattr(right, field.name))
    ]


def _interface(model: onnx.ModelProto, contract: FaceContract) -> list[str]:
    """What is wrong with the input and output: one of each, float, any batch, the teacher's names."""
    constants = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    said = []
    for what, values, name, shape in (
        ("input", inputs, contract.input_name, (3, contract.height, contract.width)),
        ("output", model.graph.output, contract.output_name, (contract.embedding_size,)),
    ):
        names = [value.name for value in values]
        if names != [name]:
            said.append(f"its {what}s are {', '.join(names) or 'none'}, not {name}")
            continue
        tensor = values[0].type.tensor_type
        batch, *rest = tensor.shape.dim or [onnx.TensorShapeProto.Dimension()]
        sizes = tuple(d.dim_value for d in rest)
        if tensor.elem_type != TensorProto.FLOAT or sizes != shape or batch.HasField("dim_value"):
            said.append(f"its {what} {name} is no float tensor of (batch, {str(shape)[1:]}")
    return said


def _loaders(model: onnx.ModelProto, contract: FaceContract) -> list[str]:
    """What is wrong with the normalization that InsightFace's loader infers from operators' names."""
    if (contract.mean, contract.std) not in (
        PREPROCESS[name][1:] for name in ("insightface", "raw")
    ):
        return []
    names = tuple(node.name for node in model.graph.node)
    mean, std = insightface_loader_normalization(names)
    if (mean, std) == (contract.mean[0], contract.std[0]):
        return []
    return [
        f"InsightFace's loader takes (x - {mean:g}) / {std:g} from its operators' names, "
        f"not {contract.normalization}"
    ]
