"""What an ONNX file says about itself, with any operators. Needs no PyTorch.

What the file does not declare is measured in ONNX Runtime (:mod:`sizes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from efquantface.contract import METADATA_KEY, FaceContract
from efquantface.importers.onnx.checked import reading
from efquantface.importers.onnx.front import front
from efquantface.importers.onnx.image_input import ImageInput, image_input
from efquantface.importers.onnx.proto import (
    LEAST_EMBEDDING,
    candidates,
    load_proto,
    several_outputs,
    width,
)
from efquantface.importers.onnx.sizes import Probe, Settled, Size, settle


@dataclass(frozen=True)
class OnnxFacts:
    """What an ONNX file says about itself.

    Attributes:
        front: (mean, std) of the normalization at the graph's start; (0, 1) where there is none.
        node_names: names of all nodes, in order.
        takes_pixels: the input is of whole numbers, which can only be pixels.
        open_size: neither file nor user gives height and width, and the file takes any.
        notes: sentences for the user on how input and sizes were read.
    """

    height: int
    width: int
    embedding_size: int
    input_name: str
    output_name: str
    front: tuple[float, float]
    node_names: tuple[str, ...]
    metadata: dict[str, str]
    takes_pixels: bool = False
    open_size: bool = False
    notes: tuple[str, ...] = ()


def read_facts(path: Path, size: Size | None = None) -> OnnxFacts:
    """What a file says about itself. Operators that cannot be imported do not matter.

    Args:
        path: the file.
        size: height and width of crops, for files that leave them open.

    Raises:
        ModelFileError: the file is no network with one image input and one embedding output.
        ContractError: the file takes crops of another size.
    """
    model = load_proto(path)
    with reading(path):
        return _facts(model, path, size)


def _facts(model: onnx.ModelProto, path: Path, size: Size | None) -> OnnxFacts:
    image = image_input(model, path)
    probe = Probe(path, model, image)
    outputs = candidates(model, path)
    settled = settle(probe, outputs, size or stored_size(model, image))
    output = embedding_output(probe, outputs, settled.size)
    declared = width(next(o for o in model.graph.output if o.name == output))
    measured = declared or probe.width(output, settled.size) or 1
    return facts_of(model, image, output, settled, measured)


def stored_size(model: onnx.ModelProto, image: ImageInput) -> Size | None:
    """Height and width from the contract in a file's metadata, where the input leaves them open."""
    if image.layout.height and image.layout.width:
        return None
    stored = next((p.value for p in model.metadata_props if p.key == METADATA_KEY), None)
    if stored is None:
        return None
    contract = FaceContract.from_json(stored)
    return contract.height, contract.width


def embedding_output(probe: Probe, outputs: list[str], size: Size) -> str:
    """Which of several outputs is the embedding, judged by the values that they give.

    Raises:
        ModelFileError: none of them can be the embedding, or several can.
    """
    if len(outputs) == 1:
        return outputs[0]
    long = [name for name in outputs if probe.width(name, size) >= LEAST_EMBEDDING]
    if len(long) != 1:
        raise several_outputs(probe.model, probe.path)
    return long[0]


def facts_of(
    model: onnx.ModelProto,
    image: ImageInput,
    output: str,
    settled: Settled,
    embedding_size: int,
) -> OnnxFacts:
    """The facts of a parsed file whose input, output and sizes are known."""
    return OnnxFacts(
        height=settled.size[0],
        width=settled.size[1],
        embedding_size=embedding_size,
        input_name=image.name,
        output_name=output,
        front=front(model, image, settled.size),
        node_names=tuple(n.name for n in model.graph.node),
        metadata={p.key: p.value for p in model.metadata_props},
        takes_pixels=image.takes_pixels,
        open_size=settled.open,
        notes=(*settled.notes, *image.notes()),
    )
