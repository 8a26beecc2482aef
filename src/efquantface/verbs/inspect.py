"""``efq inspect``: what a model file holds, what it expects of a crop, and how that was found out."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

from efquantface.data.faces import load_faces
from efquantface.errors import MissingPackageError, UnsupportedOperatorError
from efquantface.export.operators import executed
from efquantface.extras import wanted_for
from efquantface.importers.contracts import find_contract, onnx_contract, resolve
from efquantface.importers.onnx.facts import read_facts
from efquantface.importers.onnx.proto import load_proto, quantized_operators


def describe_model(
    model: str | Path,
    *,
    faces: str | Path | None = None,
    preprocess: str | None = None,
    layers: bool = False,
    resize: bool = False,
) -> list[str]:
    """Lines about a model: operators, parameters, MACs, contract; with faces, what fits them.

    Args:
        model: anything that :func:`load_model` loads, or a quantized ONNX file.
        faces: a source of faces; colour orders and normalizations are tried on it.
        preprocess: for files that do not say how pixels are normalized.
        layers: also list the layers with their shapes.
        resize: scale crops of another size.

    Raises:
        MissingPackageError: PyTorch is needed (for other files than ONNX, for ``faces`` and
            ``layers``) and not installed.
        EfqError: another kind of it, saying what was wrong.
    """
    path = resolve(model)
    lines = [f"{path} ({path.stat().st_size / 1e6:.2f} MB)"]
    if path.suffix == ".onnx":
        quantized = quantized_operators(load_proto(path))
        if quantized:
            return [*lines, *_quantized(path, quantized)]
    try:
        with wanted_for("to tell multiply-accumulates, layers and what can be compressed, inspect"):
            from efquantface.importers.load import load_model
            from efquantface.verbs import describe
    except MissingPackageError as error:
        if path.suffix != ".onnx" or layers or faces is not None:
            raise
        return [*lines, *_file(path, preprocess), str(error)]
    try:
        loaded = load_model(model, preprocess=preprocess)
    except UnsupportedOperatorError as error:
        contract = onnx_contract(path, preprocess=preprocess)
        return [
            *lines,
            f"contract: {contract.describe()}",
            f"cannot be compressed: {error}",
            "it can be evaluated and benchmarked as it is",
        ]
    lines += describe.network(loaded)
    if layers:
        lines += describe.layers(loaded)
    if faces is not None:
        lines += describe.tried(loaded, load_faces(Path(faces), loaded.contract, resize=resize))
    return lines


def _quantized(path: Path, operators: list[str]) -> list[str]:
    return [
        f"quantized already ({', '.join(operators)}): to be evaluated, benchmarked and deployed, not "
        "compressed again",
        f"contract: {onnx_contract(path).describe()}",
        f"in ONNX Runtime {executed(path).describe()}",
    ]


def _file(path: Path, preprocess: str | None) -> list[str]:
    """What a float ONNX file tells without being imported."""
    model, facts = load_proto(path), read_facts(path)
    contract, notes = find_contract(facts, path, None, preprocess)
    kinds = Counter(node.op_type for node in model.graph.node)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    values = sum(prod(tensor.dims) for tensor in model.graph.initializer)
    return [
        f"float network: {values:,} stored values",
        f"operators in the file: {listed}",
        f"contract: {contract.describe()}",
        *(f"  {note}" for note in notes),
        f"input {contract.input_name!r}, output {contract.output_name!r}",
    ]
