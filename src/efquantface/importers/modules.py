"""From any ``nn.Module`` to a canonical graph: traced by ``torch.fx``, or exported to ONNX in memory."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from efquantface.contract import FaceContract
from efquantface.errors import ModelFileError, UnsupportedOperatorError
from efquantface.importers.onnx.importer import import_proto
from efquantface.importers.onnx.proto import load_proto, width
from efquantface.importers.torch_fx import evaluating, import_module

_OPSET = 17
_SHOWN = 300
# DataParallel and DistributedDataParallel, torch.compile
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside wrappers that only change how it runs (``DataParallel``, ``torch.compile``)."""
    while type(module).__name__ in _WRAPPERS:
        inner = getattr(module, _WRAPPERS[type(module).__name__])
        assert isinstance(inner, nn.Module)
        module = inner
    return module


def module_graph(module: nn.Module, contract: FaceContract) -> tuple[fx.GraphModule, list[str]]:
    """A module as a canonical graph over its own normalized input, and notes for the user.

    A module that ``torch.fx`` cannot trace, or whose trace has no canonical form, goes through
    ``torch.onnx.export``; a note says so. The module itself is not changed.

    Raises:
        ModelFileError: the module gives another shape than the contract says, or holds values that are
            not finite.
        UnsupportedOperatorError: both ways fail; both reasons are named.
    """
    plain = _on_cpu(unwrapped(module))
    try:
        return import_module(plain, contract), []
    except UnsupportedOperatorError as error:
        reason = str(error)
    what = type(plain).__name__
    problem = ""
    for dynamic in (True, False):  # with a fixed batch of 1 more nodes fold to constants
        try:
            graph = _exported(plain, contract, dynamic)
        except UnsupportedOperatorError as error:
            problem = problem or str(error)
            continue
        return graph, [f"exported by torch.onnx, as torch.fx does not take it: {reason[:_SHOWN]}"]
    raise UnsupportedOperatorError(
        f"{problem}. Neither torch.onnx.export nor torch.fx leads to a graph of {what} "
        f"(torch.fx: {reason[:_SHOWN]})"
    )


def _on_cpu(module: nn.Module) -> nn.Module:
    """The module, or a float32 copy on the CPU where it is on another device or of another type."""
    values = [*module.parameters(), *module.buffers()]
    floats = [v for v in values if v.is_floating_point()]
    if all(v.device.type == "cpu" for v in values) and all(
        v.dtype == torch.float32 for v in floats
    ):
        return module
    return copy.deepcopy(module).float().cpu()


def _exported(module: nn.Module, contract: FaceContract, dynamic: bool) -> fx.GraphModule:
    """The graph of the module's ONNX form.

    Raises:
        UnsupportedOperatorError: the module cannot be exported, or its ONNX form cannot be imported.
        ModelFileError: the module gives another shape than the contract says.
    """
    what = type(module).__name__
    example = torch.zeros(1, 3, contract.height, contract.width)
    axes = {0: "batch"}
    with tempfile.TemporaryDirectory() as folder, evaluating(module):
        target = Path(folder) / f"{what}.onnx"
        names = [f"output{i}" for i in range(_outputs(module, example, what))]
        try:
            with warnings.catch_warnings(), _quiet():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    module,
                    (example,),
                    str(target),
                    dynamo=False,
                    opset_version=_OPSET,
                    input_names=["input"],
                    output_names=names,
                    dynamic_axes=dict.fromkeys(["input", *names], axes) if dynamic else None,
                )
        except Exception as error:  # the exporter runs the user's forward
            raise UnsupportedOperatorError(
                f"{what}: torch.onnx.export fails ({_first_line(error)})"
            ) from None
        proto = load_proto(target)
    wanted = [o for o in proto.graph.output if width(o) == contract.embedding_size]
    if len(wanted) == 1:  # other results of the module are ignored
        del proto.graph.output[:]
        proto.graph.output.extend(wanted)
    try:
        imported = import_proto(proto, Path(what))
    except UnsupportedOperatorError:
        raise
    except ModelFileError as error:
        raise UnsupportedOperatorError(str(error)) from None
    if imported.facts.embedding_size != contract.embedding_size:
        raise ModelFileError(
            f"{what}: gives {imported.facts.embedding_size} values for a face, the contract says "
            f"{contract.embedding_size}"
        )
    return imported.graph


def _outputs(module: nn.Module, example: Tensor, what: str) -> int:
    """How many tensors the module gives."""
    try:
        with torch.no_grad():
            given = module(example)
    except Exception as error:  # the user's forward raises anything
        size = f"{example.shape[3]}x{example.shape[2]}"
        raise UnsupportedOperatorError(
            f"{what}: does not run on a crop of {size}, the contract's size ({_first_line(error)})"
        ) from None
    return len(given) if isinstance(given, tuple | list) else 1


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:_SHOWN]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's log, which is about its next version."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
