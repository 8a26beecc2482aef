"""Does a file in LiteRT compute what its network computes, in XNNPACK and in LiteRT's own kernels?

Only the file itself is read. Four checks: what it says of itself; batches of several sizes; each layer
on the file's own codes (:mod:`~efquantface.export.walk`); its embeddings.

Where a kernel may round otherwise (:mod:`rounding`), differences grow from layer to layer. Two more
correct computations measure how far: one with values moved as much, and the fake-quantized student.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from efquantface.contract import FaceContract
from efquantface.errors import ContractError, ModelFileError, ParityError
from efquantface.export.alone import batch_problems, in_batches
from efquantface.export.emulate import Emulator, emulate
from efquantface.export.parity import has_islands, on_noise
from efquantface.export.stated import contract_differences
from efquantface.export.walk import EDGE, SHARE, Codes, LayerParity, walk
from efquantface.formats.litert.model import built
from efquantface.formats.litert.rounding import moved_by
from efquantface.graph.graph import module_nodes, name_of, shapes
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.rows import mean_cosine
from efquantface.runtime.litert import Interpreter
from efquantface.runtime.litert_file import (
    StoredModel,
    litert_contract,
    read_checked,
    with_outputs,
)

Rows = npt.NDArray[np.float32]
CLOSE = 5e-4  # 1 - mean cosine to the student in integers
_FLOAT = 5e-5  # relative error of a network in float, or of the embedding layer on the file's codes
_TIMES = 4.0  # another correct computation may lie so many times farther than the one tried
_TWICE = 2.0  # times; the distance of two computations is itself uncertain
_SCALE = 1e-5  # relative; moved scales differ by less (:mod:`sums`)
_CROPS = 4
_BEYOND = 2.0  # values are moved so many times farther than the kernel moved them


@dataclass(frozen=True)
class Kernels:
    """The outcome of the check in one kind of kernels.

    Attributes:
        name: of the kernels.
        layers: one entry per quantizer.
        limits: how far values may lie beyond the edges of their codes, in codes; by quantizer.
        sizes: how many codes were compared; by quantizer.
        embedding_error: largest error of the embedding layer on the file's own codes, divided by the
            largest value.
        cosine: mean cosine to the student in integers, or to the float network.
        rounding: 1 - mean cosine that another rounding explains.
        said: what else is wrong, one sentence each.
    """

    name: str
    layers: tuple[LayerParity, ...]
    limits: tuple[float, ...]
    embedding_error: float
    cosine: float
    rounding: float = 0.0
    sizes: tuple[int, ...] = ()
    said: tuple[str, ...] = ()

    @property
    def problems(self) -> list[str]:
        """Why the file must not be delivered; empty where it may."""
        found = list(self.said)
        for layer, limit, size in zip(self.layers, self.limits, self.sizes, strict=True):
            found += _problem(layer, limit, size)
        if not self.embedding_error <= _FLOAT:
            found.append(f"embeddings differ by {self.embedding_error:.2g} (relative)")
        allowed = max(CLOSE, _TIMES * self.rounding)
        if not 1 - self.cosine <= allowed:
            found.append(
                f"1 - cosine is {1 - self.cosine:.2g} to the network, more than the {allowed:.2g} that "
                "rounding explains"
            )
        return [f"{self.name}: {problem}" for problem in found]

    def line(self) -> str:
        """The outcome in one line."""
        if not self.layers:
            return f"{self.name}: embeddings differ by {self.embedding_error:.1g} (relative)"
        differing = [layer for layer in self.layers if layer.differing]
        equal = (
            f"{self.name}: {len(self.layers) - len(differing)} of {len(self.layers)} layers equal"
        )
        if not differing:
            return f"{equal} to the student's codes on random pixels"
        share = max(layer.differing for layer in differing)
        return (
            f"{equal}; in the others up to {share:.1g} of the codes differ by one; mean cosine "
            f"{self.cosine:.5f} to the student in integers on random pixels"
        )


def _problem(layer: LayerParity, limit: float, size: int) -> list[str]:
    edge = EDGE + limit + _TIMES * layer.rounding
    if layer.max_codes > 1:
        return [f"layer {layer.name} differs by {layer.max_codes} codes"]
    if not layer.beyond <= edge:
        return [
            f"layer {layer.name} differs by values up to {layer.beyond:.2g} codes beyond the edges of "
            f"their codes, more than {edge:.2g}"
        ]
    share = SHARE + _TWICE * (limit + layer.rounding)
    # the share of few codes scatters
    if not layer.differing <= share + _TIMES * (share / size) ** 0.5:
        return [f"layer {layer.name} differs by a code in {layer.differing:.2g} of its codes"]
    return []


def check_litert(model: FaceModel, path: Path) -> list[Kernels]:
    """Compare a written file with its network on random pixels.

    Returns:
        The outcome in XNNPACK's kernels, and in LiteRT's own.

    Raises:
        ParityError: the file has another contract, or XNNPACK does not compute the whole graph in one
            part. Or the file does not compute what the network computes.
    """
    try:
        data, stored = read_checked(path)
        contract = litert_contract(path)
    except (ModelFileError, ContractError) as error:
        raise ParityError(f"{error}; it fails the parity check") from None
    found = contract_differences(contract, model.contract)
    if found:
        raise ParityError(f"{path}: fails the parity check: {'; '.join(found)}")
    checked = [
        _checked(model, path, (data, stored), contract, builtin=builtin)
        for builtin in (False, True)
    ]
    problems = [problem for kernels in checked for problem in kernels.problems]
    if problems:
        raise ParityError(f"{path}: fails the parity check: {'; '.join(problems)}")
    return checked


def _checked(
    model: FaceModel,
    path: Path,
    file: tuple[bytes, StoredModel],
    contract: FaceContract,
    *,
    builtin: bool,
) -> Kernels:
    name = "LiteRT's own kernels" if builtin else "XNNPACK"
    noise, floating = on_noise(model, _CROPS)
    try:
        interpreter = Interpreter(file[0], str(path), builtin=builtin)
        whole = interpreter.is_whole()
        run = lambda x: np.asarray(interpreter(x)[0], np.float32)  # noqa: E731
        rows, batches = in_batches(run, path, contract, noise)
        codes = _codes(model, path, file, contract.normalize(noise), builtin)
    except ModelFileError as error:
        raise ParityError(f"{error}; it fails the parity check") from None
    said = [] if whole or builtin else ["does not compute the whole graph in one part"]
    if not model.quantized:
        said += batch_problems(rows, batches, _FLOAT)
        cosine = mean_cosine(rows, floating)
        return Kernels(name, (), (), _relative(rows, floating), cosine, said=tuple(said))
    pixels = torch.from_numpy(model.contract.pixels(noise)).float()
    said += _input_problems(model, pixels, codes)
    layers, own = walk(model, pixels, codes, islands=has_islands(model))
    nodes = {name_of(node): node for node, _ in module_nodes(model.graph)}
    sizes = shapes(model.graph, model.contract.height, model.contract.width)
    limits = tuple(moved_by(model.graph, nodes[layer.name], sizes, builtin) for layer in layers)
    exact, rounding = own, 0.0
    if any(layer.differing for layer in layers):
        exact = emulate(model, pixels).numpy()
        moved = _moved(model, pixels, {layer.name: layer for layer in layers})
        rounding = 1 - min(mean_cosine(exact, moved), mean_cosine(exact, floating))
    said += batch_problems(rows, batches, float(np.sqrt(2 * max(CLOSE, _TIMES * rounding))))
    cosine = mean_cosine(exact, rows)
    counts = tuple(codes[layer.name].size for layer in layers)
    return Kernels(
        name, layers, limits, _relative(rows, own), cosine, rounding, counts, tuple(said)
    )


def _codes(
    model: FaceModel,
    path: Path,
    file: tuple[bytes, StoredModel],
    x: npt.NDArray[np.float32],
    builtin: bool,
) -> Codes:
    """The codes that the file computes, with the student's zero points, by quantizer name."""
    data, stored = file
    quantizers = {
        name_of(node): module
        for node, module in module_nodes(model.graph)
        if isinstance(module, ActivationQuantizer | InputQuantizer)
    }
    if not quantizers:
        return {}
    places, orders = stored.names(), built(model).out.orders
    missing = [name for name in quantizers if name not in places]
    if missing:
        raise ParityError(f"{path}: fails the parity check: it holds no {', '.join(missing[:3])}")
    tensors = tuple(places[name] for name in quantizers)
    found: Codes = {}
    outputs = Interpreter(with_outputs(data, stored, tensors), str(path), builtin=builtin)(x)
    for (name, module), tensor, made in zip(quantizers.items(), tensors, outputs, strict=True):
        scale, zero_point = module.qparams()
        kept = stored.tensors[tensor]
        if not np.allclose(kept.scales, scale, rtol=_SCALE, atol=0):
            raise ParityError(f"{path}: fails the parity check: {name} has another scale")
        codes = made.astype(np.int32) - (kept.zero_points[0] - zero_point)
        found[name] = codes.transpose(np.argsort(orders[name]))
    return found


def _input_problems(model: FaceModel, pixels: Tensor, codes: Codes) -> list[str]:
    """What is wrong with the codes of the file's input, one sentence each."""
    found = []
    for node, module in module_nodes(model.graph):
        if not isinstance(module, InputQuantizer):
            continue
        scale, zero_point = module.qparams()
        if module.pixels:
            right = pixels.double() - (module.zero_point_value - zero_point)
        else:
            right = (module.normalized(pixels) / scale).double() + zero_point
        low = -128 if module.symmetric else 0
        theirs = torch.from_numpy(codes[name_of(node)])
        beyond = float((right.clamp(low, low + 255) - theirs).abs().max()) - 0.5
        if not beyond <= EDGE:
            found.append(f"{name_of(node)} differs by {beyond + 0.5:.2g} codes of the pixels")
    return found


class _Moved(Emulator):
    """A student whose values are moved at random, as far as a kernel moved them."""

    def __init__(self, gm: fx.GraphModule, layers: dict[str, LayerParity]) -> None:
        super().__init__(gm)
        self.layers, self.random = layers, torch.Generator().manual_seed(0)

    def settle(
        self,
        node: fx.Node,
        module: ActivationQuantizer,
        unrounded: Tensor,
        codes: Tensor,
        in_float: bool,
    ) -> Tensor:
        layer = self.layers[name_of(node)]
        if not layer.differing:
            return codes
        noise = torch.rand(unrounded.shape, generator=self.random, dtype=torch.float64)
        side = 2 * torch.randint(2, (), generator=self.random) - 1  # a kernel errs to one side
        moved = unrounded + side * noise * _BEYOND * (layer.beyond + layer.rounding)
        return moved.round().clamp(module.qmin, module.qmax)


def _moved(model: FaceModel, pixels: Tensor, layers: dict[str, LayerParity]) -> Rows:
    with torch.no_grad():
        result: Tensor = _Moved(model.graph, layers).run(pixels)
    return np.asarray(result.float().numpy(), np.float32)


def _relative(found: Rows, right: Rows) -> float:
    """Largest difference, divided by the largest value."""
    tiny = float(np.finfo(np.float32).tiny)
    return float(np.abs(found - right).max() / max(float(np.abs(right).max()), tiny))
