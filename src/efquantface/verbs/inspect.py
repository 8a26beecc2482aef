"""``efq inspect``: what a model file holds, what crops it expects, and how that was found."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from efquantface.data.faces import crop_size, load_faces, open_source
from efquantface.errors import MissingPackageError, ModelFileError, UnsupportedOperatorError
from efquantface.export.operators import executed
from efquantface.export.portability import PORTABLE, overflowing, wrong_without_vnni
from efquantface.extras import wanted_for
from efquantface.importers.contracts import find_contract, onnx_contract, resolve
from efquantface.importers.looks import no_embedding
from efquantface.importers.onnx.facts import read_facts
from efquantface.importers.onnx.proto import load_proto, quantized_operators
from efquantface.runtime.backends import own_backend


@dataclass
class Description:
    """What was found about a model: lines for a user, and the same as plain data."""

    lines: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def add(self, lines: list[str], **numbers: Any) -> Description:
        """Append to both; returns itself."""
        self.lines += lines
        self.numbers |= numbers
        return self


def describe_model(
    model: str | Path,
    *,
    faces: str | Path | None = None,
    preprocess: str | None = None,
    size: tuple[int, int] | None = None,
    layers: bool = False,
    resize: bool = False,
    follow_links: bool = False,
) -> Description:
    """Describe a model: operators, parameters, MACs, contract; with ``faces``, which preprocessing fits.

    Args:
        model: anything that :func:`load_model` loads, or a file of a runtime.
        faces: a source of faces on which colour orders and normalizations are tried.
        preprocess: for files that do not say how pixels are normalized.
        size: height and width of crops, for files that leave them open; None takes them from ``faces``.
        layers: also list the layers with their shapes.
        resize: scale crops of another size.
        follow_links: see :func:`~efquantface.data.faces.open_source`.

    Raises:
        MissingPackageError: PyTorch is not installed, and is needed for files other than ONNX, for
            ``faces`` and for ``layers``.
        EfqError: another subclass of it; its text says what is wrong.
    """
    path = resolve(model)
    stored = path.stat().st_size
    found = Description().add([f"{path} ({stored / 1e6:.2f} MB)"], file=str(path), bytes=stored)
    if path.suffix == ".onnx":
        quantized = quantized_operators(load_proto(path))
        if quantized:
            return _quantized(found, path, quantized)
    backend = own_backend(path)
    if backend is not None and backend.contract is not None:
        return _of_runtime(found, path, backend.name)
    try:
        with wanted_for("inspect of multiply-accumulates, layers and what can be compressed"):
            from efquantface.importers.load import load_model
            from efquantface.pipeline.compressible import check_compressible
            from efquantface.pipeline.teacher_check import compared
            from efquantface.verbs import describe
    except MissingPackageError as error:
        if path.suffix != ".onnx" or layers or faces is not None:
            raise
        return _file(found, path, preprocess, size).add([str(error)])
    try:
        loaded = load_model(model, preprocess=preprocess, size=size)
        if loaded.open_size and faces is not None and not resize:
            real = crop_size(open_source(Path(faces), follow_links))
            loaded = load_model(model, preprocess=preprocess, size=real)
    except UnsupportedOperatorError as error:
        contract = onnx_contract(path, preprocess=preprocess, size=size)
        return found.add(
            [
                f"contract: {contract.describe()}",
                f"cannot be compressed: {error}",
                "it can be evaluated and benchmarked as it is",
            ],
            contract=asdict(contract),
            compressible=False,
            unsupported=str(error),
        )
    found.add(describe.network(loaded), **describe.numbers(loaded))
    no = no_embedding(loaded.contract.embedding_size)
    if no is not None:
        found.add([f"cannot be compressed: {no}"], unsupported=no)
    if layers:
        listed = describe.layers(loaded)
        found.add([layer.line() for layer in listed], layers=[asdict(layer) for layer in listed])
    seen = None
    if faces is not None:
        seen = load_faces(Path(faces), loaded.contract, resize=resize, follow_links=follow_links)
    if not loaded.quantized:
        try:
            found.add(compared(model, loaded, None if seen is None else seen.images))
            check_compressible(loaded)
        except ModelFileError as error:
            found.add(
                [f"cannot be compressed: {error}"], compressible=False, unsupported=str(error)
            )
        else:
            found.add(["can be compressed"], compressible=True)
    if seen is not None:
        scores = describe.separation_scores(loaded, seen)
        found.add(describe.tried(loaded, scores, len(seen)), auc_of_preprocessings=scores)
    return found


def _quantized(found: Description, path: Path, operators: list[str]) -> Description:
    contract, ran, layers = onnx_contract(path), executed(path), overflowing(load_proto(path))
    return found.add(
        [
            f"quantized already ({', '.join(operators)}): it can be evaluated, benchmarked and "
            "deployed, but not compressed again",
            f"contract: {contract.describe()}",
            f"in ONNX Runtime {ran.describe()}",
            f"portable: {'no, ' + wrong_without_vnni(layers) if layers else 'yes, ' + PORTABLE}",
        ],
        quantized=True,
        contract=asdict(contract),
        executed_operators=dict(ran.counts),
        portable=not layers,
        overflowing_layers=layers,
    )


def _of_runtime(found: Description, path: Path, backend: str) -> Description:
    """Describe a file that its runtime can only run."""
    contract = onnx_contract(path)
    return found.add(
        [
            f"a file for --backend {backend}: it can be evaluated, benchmarked and deployed, but not "
            "compressed",
            f"contract: {contract.describe()}",
        ],
        backend=backend,
        contract=asdict(contract),
        compressible=False,
    )


def _file(
    found: Description, path: Path, preprocess: str | None, size: tuple[int, int] | None
) -> Description:
    """Describe a float ONNX file without importing it."""
    model, facts = load_proto(path), read_facts(path, size)
    contract, notes = find_contract(facts, path, None, preprocess)
    kinds = Counter(node.op_type for node in model.graph.node)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    values = sum(prod(tensor.dims) for tensor in model.graph.initializer)
    return found.add(
        [
            f"float network: {values:,} stored values",
            f"operators in the file: {listed}",
            f"contract: {contract.describe()}",
            *(f"  {note}" for note in notes),
            f"input {contract.input_name!r}, output {contract.output_name!r}",
        ],
        quantized=False,
        stored_values=values,
        operators=dict(kinds),
        contract=asdict(contract),
        notes=list(notes),
    )
