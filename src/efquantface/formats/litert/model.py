"""A model as the bytes of a LiteRT file, and what LiteRT cannot carry of it.

The file's input is normalized floats with channels last, its output the embedding in float. Codes are
int8. They are the student's, shifted so that int8's own ends limit them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import fx, nn

from efquantface.contract import METADATA_KEY
from efquantface.formats.litert.emitters import EMITTERS
from efquantface.formats.litert.function_forms import is_known
from efquantface.formats.litert.sums import free_scales
from efquantface.formats.litert.tables import Tensor, packed
from efquantface.formats.litert.values import LAST, Value
from efquantface.formats.litert.writer import Writer
from efquantface.graph import ops
from efquantface.graph.graph import INPUT, module_nodes, name_of, output_name, shapes
from efquantface.graph.model import FaceModel
from efquantface.runtime.litert_file import DIGEST_BYTES, DIGEST_KEY, LAYOUT, LAYOUT_KEY, sealed


def not_carried(model: FaceModel) -> str | None:
    """Which operators have no LiteRT form, in words; None where all have one."""
    found = [
        f"{name_of(node)} ({_kind(module)})"
        for node, module in module_nodes(model.graph)
        if type(module) not in EMITTERS
        or (isinstance(module, ops.Function) and not is_known(module))
    ]
    if not found:
        return None
    return f"LiteRT computes no {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"


def _kind(module: nn.Module) -> str:
    return module.function if isinstance(module, ops.Function) else type(module).__name__


@dataclass(frozen=True)
class Built:
    """A network as tensors and operators of LiteRT.

    Attributes:
        out: its tensors and operators.
        ends: indices of the tensors of input and output.
    """

    out: Writer
    ends: tuple[int, int]


def built(model: FaceModel) -> Built:
    """Tensors and operators of a model, for a batch of 1, which clients may resize."""
    contract = model.contract
    sizes = shapes(model.graph, contract.height, contract.width)
    out = Writer(model.graph, contract, sizes, scales=free_scales(model.graph))
    source = Value(-1, (1, 3, contract.height, contract.width), LAST)
    source = source.made(out.add(Tensor(source.stored, np.float32, contract.input_name)))
    values = {INPUT: source}
    for node, module in module_nodes(model.graph):
        inputs = [values[name_of(a)] for a in node.args if isinstance(a, fx.Node)]
        emitter = EMITTERS[type(module)]  # type: ignore[index]
        values[name_of(node)] = emitter(out, name_of(node), module, inputs)
    result = out.laid(out.real(values[output_name(model.graph)]))
    out.tensors[result.tensor].name = contract.output_name
    return Built(out, (source.tensor, result.tensor))


def to_litert(model: FaceModel) -> bytes:
    """The bytes of a model's file, with its contract."""
    made = built(model)
    metadata = {
        METADATA_KEY: model.contract.to_json().encode(),
        LAYOUT_KEY: LAYOUT.encode(),
        DIGEST_KEY: bytes(DIGEST_BYTES),
    }
    data = packed(made.out.tensors, made.out.operations, made.ends, metadata)
    return sealed(data, model.name)
