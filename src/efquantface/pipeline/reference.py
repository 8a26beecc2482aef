"""What a teacher is compared with: the user's file in ONNX Runtime, or the user's module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, fx, nn

from efquantface.contract import FaceContract
from efquantface.errors import ModelFileError, NotRunnableError
from efquantface.graph.checkpoint import is_own_checkpoint
from efquantface.graph.graph import INPUT, name_of, safe_name
from efquantface.graph.model import FaceModel
from efquantface.importers.contracts import resolve
from efquantface.importers.modules import module_graph, unwrapped
from efquantface.importers.onnx.importer import import_onnx
from efquantface.importers.onnx.places import FRONT
from efquantface.importers.onnx.proto import load_proto
from efquantface.importers.recognize import recognize
from efquantface.importers.state_dicts import SUFFIXES
from efquantface.importers.torch_fx import evaluating
from efquantface.runtime.feeding import Layout, fed, layout_of
from efquantface.runtime.sessions import Float32, onnxruntime_session, run_onnxruntime

Array = npt.NDArray[Any]
SINGLE, HALF = 1e-4, 1e-2  # largest relative difference of a tensor from rounding
_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


class Reference(Protocol):
    """The source of a teacher, which can be run without the imported graph.

    Attributes:
        name: of the file or the module.
        what: the kind of source, for messages ("its own file").
        half: whether it computes in half precision.
    """

    name: str
    what: str
    half: bool

    def run(self, x: Float32) -> Float32:
        """Embeddings (N,D), float32, of normalized float32 crops (N,3,H,W)."""
        ...

    def values(self, x: Float32) -> Iterator[tuple[str, str, Array, Array]]:
        """Its tensors and those of the imported graph, in order of execution.

        Args:
            x: normalized float32 crops (N,3,H,W).

        Yields:
            A tensor's name, the operator that computes it, its value in the source, and its value in
            the graph.
        """
        ...

    def trained(self) -> str:
        """The operators that are in training mode, as text; empty if there are none."""
        ...


def reference_of(given: str | Path | nn.Module | FaceModel, model: FaceModel) -> Reference | None:
    """The reference of a loaded teacher; None if nothing can run its source (dlib's file, a student).

    Args:
        given: the teacher as the user gave it.
        model: the loaded teacher.

    Raises:
        NotRunnableError: ONNX Runtime cannot load the file.
    """
    if isinstance(given, nn.Module):
        inner = unwrapped(given)
        return ModuleReference(inner, model.contract, type(inner).__name__, "the module itself")
    if isinstance(given, FaceModel):
        return None
    path = resolve(given)
    if path.suffix == ".onnx":
        return FileReference(path, model.contract)
    own = path.suffix == ".safetensors" and is_own_checkpoint(path)
    if path.suffix in SUFFIXES and not own:
        module = recognize(path).module
        return ModuleReference(
            module, model.contract, str(path), "the network it was recognized as"
        )
    return None


class FileReference:
    """An ONNX file in a session of ONNX Runtime."""

    what = "its own file"

    def __init__(self, path: Path, contract: FaceContract) -> None:
        self.path, self.name = path, str(path)
        self.proto = load_proto(path)
        self.half = _computes_in_half(self.proto)
        try:
            session = onnxruntime_session(path)
        except ModelFileError as error:
            raise NotRunnableError(str(error)) from None
        self._run = run_onnxruntime(session, contract.output_name, lenient=True)

    def run(self, x: Float32) -> Float32:
        """See :class:`Reference`."""
        return self._run(x)

    def values(self, x: Float32) -> Iterator[tuple[str, str, Array, Array]]:
        """See :class:`Reference`; the file's tensors become outputs."""
        imported = import_onnx(self.path)
        names = [
            (output, node)
            for node in self.proto.graph.node
            for output in node.output
            if output in imported.names
        ]
        probe = onnx.ModelProto()
        probe.CopyFrom(self.proto)
        del probe.graph.output[:]
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name, _ in names)
        session = onnxruntime_session(probe.SerializeToString())
        source = session.get_inputs()[0]
        layout = layout_of(source.shape) or Layout(None, None, None)
        if layout.batch:
            x = np.resize(x, (layout.batch, *x.shape[1:]))
        there = session.run([name for name, _ in names], {source.name: fed(x, layout, source.type)})
        here = _node_values(imported.graph, x)
        for (name, node), value in zip(names, there, strict=True):
            own = here.get(imported.names[name])
            if own is not None:
                value = imported.moved.get(name, FRONT).front(value)
                yield name, f"{node.op_type} {node.name!r}", value, own

    def trained(self) -> str:
        """See :class:`Reference`."""
        constants = {
            i.name: onnx.numpy_helper.to_array(i)
            for i in self.proto.graph.initializer
            if not i.dims or list(i.dims) == [1]
        } | {
            node.output[0]: onnx.numpy_helper.to_array(attribute.t)
            for node in self.proto.graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
        found = [
            f"{node.op_type} {node.name or node.output[0]!r}"
            for node in self.proto.graph.node
            if _trains(node, constants)
        ]
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"{found[0]}{more}" if found else ""


class ModuleReference:
    """An ``nn.Module`` in evaluation mode."""

    def __init__(self, module: nn.Module, contract: FaceContract, name: str, what: str) -> None:
        self.module, self.contract, self.name, self.what = module, contract, name, what
        some = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(0))
        self.dtype, self.device = some.dtype, some.device
        self.half = some.dtype in (torch.float16, torch.bfloat16)

    def run(self, x: Float32) -> Float32:
        """Embeddings (N,D) from the module's ``forward``."""
        size = len(x) * self.contract.embedding_size
        with evaluating(self.module), torch.no_grad():
            found = self.module(torch.from_numpy(x).to(self.device, self.dtype))
        if isinstance(found, tuple | list):  # a norm or a quality score is returned, too
            found = next((t for t in found if isinstance(t, Tensor) and t.numel() == size), None)
        if len(x) > 1 and (found is None or found.numel() != size):  # it takes one face at a time
            return np.concatenate([self.run(crop[None]) for crop in x])
        return _array(found).reshape(len(x), -1)

    def values(self, x: Float32) -> Iterator[tuple[str, str, Array, Array]]:
        """See :class:`Reference`; outputs of the module's layers."""
        there: dict[str, tuple[str, Array]] = {}

        def keep(path: str) -> Any:
            def hook(layer: nn.Module, _: Any, output: Any) -> None:
                if isinstance(output, Tensor):
                    there.setdefault(path, (type(layer).__name__, _array(output)))

            return hook

        hooks = [m.register_forward_hook(keep(p)) for p, m in self.module.named_modules() if p]
        try:
            self.run(x)
        finally:
            for hook in hooks:
                hook.remove()
        here = _node_values(module_graph(self.module, self.contract)[0], x)
        for path, (kind, value) in there.items():
            own = here.get(safe_name(path))
            if own is not None:
                yield path, kind, value, own

    def trained(self) -> str:
        """See :class:`Reference`; a module is always checked in evaluation mode."""
        return ""


@dataclass(frozen=True)
class Difference:
    """A tensor that differs.

    Attributes:
        tensor: its name in the file or module.
        maker: the operator that computes it.
        size: relative difference over all crops; infinite if a value is not finite.
    """

    tensor: str
    maker: str
    size: float


def first_difference(reference: Reference, x: Float32) -> Difference | None:
    """The first tensor, in order of execution, that differs by more than rounding.

    Args:
        reference: the source of the teacher.
        x: normalized float32 crops (N,3,H,W).

    Returns:
        None if all tensors agree.
    """
    limit = HALF if reference.half else SINGLE
    for tensor, maker, there, here in reference.values(x):
        size = relative_difference(there, here)
        if size > limit:
            return Difference(tensor, maker, size)
    return None


def relative_difference(there: Array, here: Array) -> float:
    """Norm of the difference over the norm of ``there``; infinite if sizes differ."""
    if there.size != here.size:
        return np.inf
    wanted = there.astype(np.float64).reshape(-1)
    distance = np.linalg.norm(here.astype(np.float64).reshape(-1) - wanted)
    if not np.isfinite(distance):
        return np.inf
    return float(distance / max(float(np.linalg.norm(wanted)), 1e-12))


@torch.no_grad()
def _node_values(graph: fx.GraphModule, x: Float32) -> dict[str, Array]:
    """Every node's output, by name."""
    found: dict[str, Array] = {}

    class _Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if n.op != "output":
                found[INPUT if n.op == "placeholder" else name_of(n)] = _array(result)
            return result

    _Recorder(graph).run(torch.from_numpy(x))
    return found


def _array(value: Tensor) -> Array:
    return value.detach().float().cpu().numpy()


def _computes_in_half(proto: onnx.ModelProto) -> bool:
    """Whether half-precision values are computed with, not only stored and cast."""
    graph = proto.graph
    read = {name for n in graph.node if n.op_type != "Cast" for name in n.input}
    kinds = {i.data_type for i in graph.initializer if i.name in read}
    kinds |= {i.type.tensor_type.elem_type for i in graph.input}
    kinds |= {a.i for n in graph.node if n.op_type == "Cast" for a in n.attribute if a.name == "to"}
    return any(kind in _HALVES for kind in kinds)


def _trains(node: onnx.NodeProto, constants: dict[str, Array]) -> bool:
    """Whether a node is in training mode."""
    if (
        node.op_type == "BatchNormalization"
    ):  # up to opset 13, statistics as outputs mean training mode
        told = any(a.name == "training_mode" and a.i == 1 for a in node.attribute)
        return told or sum(bool(name) for name in node.output) > 1
    if node.op_type == "Dropout" and len(node.input) > 2:
        value = constants.get(node.input[2])
        return value is not None and bool(value.reshape(-1)[0])
    return False
