"""The file that a user's model stands for, and the contract of a runtime's file. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from efquantface import assets
from efquantface.contract import ASSUMED, METADATA_KEY, FaceContract
from efquantface.downloads import stand_in
from efquantface.errors import ContractError, ModelFileError
from efquantface.importers.onnx.facts import OnnxFacts, read_facts
from efquantface.importers.packs import is_pack, open_pack
from efquantface.runtime.backends import own_backend

_BAKED_IN = 8.0  # a graph that first divides pixels by this or more, or subtracts it, normalizes


def resolve(model: str | Path) -> Path:
    """The file that the name of a default, a run's folder, a pack of networks or a path stands for.

    Raises:
        ModelFileError: there is no such file, or a pointer or web page stands in its place.
        NotRecognizingError: a pack has no recognizer, or several.
    """
    if isinstance(model, str) and model in assets.MODELS:
        return assets.path_of(assets.MODELS[model])
    path = Path(model)
    if path.is_dir():
        student = path / "student.safetensors"
        if student.is_file():
            return student
        if not is_pack(path):
            raise ModelFileError(
                f"{path}: this folder is no run (it has no student.safetensors) and no pack of networks "
                "(it has no .onnx files)"
            )
    if is_pack(path):
        return open_pack(path).recognizer
    if not path.is_file():
        names = ", ".join(assets.MODELS)
        raise ModelFileError(f"{path}: no such file, and not the name of a default ({names})")
    instead = stand_in(path)
    if instead:
        raise ModelFileError(f"{path}: {instead}")
    return path


def onnx_contract(
    path: Path,
    contract: FaceContract | None = None,
    preprocess: str | None = None,
    size: tuple[int, int] | None = None,
) -> FaceContract:
    """The contract of a runtime's file; arguments and errors are those of :func:`opened`."""
    return opened(path, contract, preprocess, size)[0]


def opened(
    path: Path,
    contract: FaceContract | None = None,
    preprocess: str | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[FaceContract, OnnxFacts | None]:
    """The contract of a runtime's file with any operators, and the facts of an ONNX file.

    Args:
        path: the file; its ending is one of :mod:`~efquantface.runtime.backends`.
        contract, preprocess: those that the user declares; None for none.
        size: height and width of crops, for files that leave them open.

    Raises:
        ModelFileError: the file cannot be read.
        ContractError: a file of another runtime has no contract, or a declared contract does not fit.
    """
    backend = own_backend(path)
    if backend is not None and backend.contract is not None:
        return contract or backend.contract(path), None
    facts = read_facts(path, wanted_size(contract, size))
    return find_contract(facts, path, contract, preprocess)[0], facts


def wanted_size(
    contract: FaceContract | None, size: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Height and width that the user gives, as ``size`` or in a contract; None where neither."""
    return size if contract is None else (contract.height, contract.width)


def find_contract(
    facts: OnnxFacts, path: Path, contract: FaceContract | None, preprocess: str | None
) -> tuple[FaceContract, list[str]]:
    """A file's contract: declared by the user, stored in the file, measured in the graph, or assumed.

    Returns:
        The contract, and sentences on how contract and input were found.

    Raises:
        ContractError: a declared contract does not fit the file, or a stored one cannot be read.
    """
    said = list(facts.notes)
    base = FaceContract(
        height=facts.height,
        width=facts.width,
        embedding_size=facts.embedding_size,
        template="arcface112" if facts.height == facts.width == 112 else "unknown",
        input_name=facts.input_name,
        output_name=facts.output_name,
    )
    if contract is not None:
        if contract.embedding_size != facts.embedding_size:
            raise ContractError(
                f"{path}: embeddings have {facts.embedding_size} values, the contract says "
                f"{contract.embedding_size}"
            )
        return replace(contract, input_name=facts.input_name, output_name=facts.output_name), said
    if preprocess is not None:
        return replace(base.with_preprocess(preprocess), source=f"--preprocess {preprocess}"), said
    if METADATA_KEY in facts.metadata:
        return FaceContract.from_json(facts.metadata[METADATA_KEY], str(path)), said
    mean, std = facts.front
    if facts.takes_pixels or max(abs(mean), std) >= _BAKED_IN:
        note = f"preprocessing is in the graph: (x - {mean:g}) / {std:g} on pixels 0..255"
        return replace(base.with_preprocess("raw"), source="graph constants"), [*said, note]
    note = (
        "preprocessing is not in the file: assumed RGB, (x - 127.5) / 127.5; "
        "say --preprocess insightface|adaface|imagenet|raw if you know it"
    )
    return replace(base, source=ASSUMED), [*said, note]
