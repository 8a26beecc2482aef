"""Makes the untrained student: equalizes, chooses bits, places quantizers, searches ranges, rounds."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from efquantface.console import Console
from efquantface.data.faces import FaceSet
from efquantface.errors import RecipeError
from efquantface.export.onnx_writer import to_onnx
from efquantface.export.packing import stored_bits
from efquantface.graph.graph import module_nodes, name_of, shapes
from efquantface.graph.model import FaceModel
from efquantface.quantize.borders import equalize_borders
from efquantface.quantize.budget import parse_budget
from efquantface.quantize.equalize import equalize
from efquantface.quantize.layers import QuantConv2d, QuantLinear
from efquantface.quantize.mixed import CHOICES, LayerChoice, allocate, sensitivities
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.reconstruct import reconstruct
from efquantface.quantize.scheme import Bits, Scheme
from efquantface.quantize.trying import tried

_CALIBRATION_BATCH = 32
_SENSITIVITY_BATCHES = 2  # of 32 images; 50 layers at 3 choices are 150 passes over them
_RECONSTRUCTION_CROPS = 192
_RECONSTRUCTION_BYTES = 3.2e9
_MAPS_ALIVE = 10  # feature maps of the largest size in memory, in student and teacher together
_TRIES = 4


@dataclass
class Start:
    """What training starts from.

    Attributes:
        student: quantized, with ranges.
        teacher: the float network with the same equalization.
        scheme: the bits of every layer.
        choices: the bits that the budget chose by layer; empty without a budget.
    """

    student: FaceModel
    teacher: FaceModel
    scheme: Scheme
    choices: list[LayerChoice] = field(default_factory=list)


def calibration_index(
    train: npt.NDArray[np.int64], seed: int = 0, count: int = 256
) -> npt.NDArray[np.int64]:
    """Indices of the calibration images: ``count`` of ``train``, sorted."""
    return np.sort(np.random.default_rng([seed, 50]).permutation(train)[:count])


def calibration_batches(
    model: FaceModel,
    faces: FaceSet,
    train: npt.NDArray[np.int64],
    seed: int = 0,
    count: int = 256,
) -> list[Tensor]:
    """Batches of uint8 pixels (N,3,H,W) on which channels are scored and ranges searched.

    Args:
        model: whose contract the pixels follow.
        faces: all faces.
        train: indices of the training images.
        seed: of the choice.
        count: number of images, at most.
    """
    index = calibration_index(train, seed, count)
    pixels = torch.from_numpy(model.contract.pixels(faces.images[index]))
    return list(torch.split(pixels, _CALIBRATION_BATCH))


def make_start(
    model: FaceModel,
    batches: list[Tensor],
    scheme: Scheme,
    budget: str | None,
    seed: int,
    console: Console,
    rebuild: bool = True,
) -> Start:
    """Build the untrained student from a float model.

    Args:
        model: canonical float model, which is not changed.
        batches: calibration pixels, uint8 (N,3,H,W).
        scheme: the bits.
        budget: the largest file, as in the recipe; None: the bits of ``scheme``.
        seed: of the positions that ranges and layers are fitted on.
        console: for log and progress.
        rebuild: reconstruct the weights; otherwise each is rounded to the nearest code.

    Raises:
        RecipeError: the budget cannot be met, or is given with bits of layers.
    """
    teacher = copy.deepcopy(model)
    with console.bar("equalizing channels") as advance:
        for optimization in (equalize, equalize_borders):
            teacher.graph, reason = tried(
                optimization, teacher.graph, batches, lambda _, done, total: advance(done, total)
            )
            if reason:
                console.log(f"{optimization.__name__.replace('_', ' ')}: left out, it {reason}")

    def build(wanted: Scheme) -> FaceModel:
        student = quantize(teacher, wanted)
        with console.bar("searching ranges") as advance:
            set_ranges(
                student.graph,
                batches,
                seed=seed,
                progress=lambda _, done, total: advance(done, total),
            )
        if rebuild:
            crops = torch.cat(batches)[: _reconstruction_crops(teacher)]
            with console.bar("rounding weights") as advance:
                reconstruct(student.graph, teacher.graph, crops, seed=seed, progress=advance)
        return student

    if budget is None:
        return Start(build(scheme), teacher, scheme)
    if scheme.layers or scheme.bits.weight != 8:
        raise RecipeError("a budget chooses the bits of weights itself; leave out bits of layers")
    with console.bar("measuring what layers lose") as advance:
        found = sensitivities(teacher.graph, batches[:_SENSITIVITY_BATCHES], scheme, advance)
    wide = _wide(quantize(teacher, _fewest(scheme)))
    free = [layer for layer in found if layer.name not in wide]
    fitted = _fit(free, scheme, budget, lambda wanted: _file_size(quantize(teacher, wanted)))
    by_name = {layer.name: layer for layer in fitted}
    chosen = [by_name.get(layer.name, layer) for layer in found]
    pinned = dataclasses.replace(scheme, layers=_as_layers(chosen, scheme))
    student = build(pinned)
    weights = sum(c.weights * c.bits for c in chosen) / sum(c.weights for c in chosen)
    console.log(f"budget {budget}: {weights:.2f} bits a weight, {_file_size(student):,} bytes")
    return Start(student, teacher, pinned, chosen)


def reconstruction_mb(model: FaceModel) -> float:
    """MB of feature maps in memory during reconstruction."""
    return _reconstruction_crops(model) * _crop_bytes(model) / 2**20


def _reconstruction_crops(model: FaceModel) -> int:
    """The number of crops for reconstruction, limited by memory."""
    return min(_RECONSTRUCTION_CROPS, int(_RECONSTRUCTION_BYTES / _crop_bytes(model)))


def _crop_bytes(model: FaceModel) -> int:
    found = shapes(model.graph, model.contract.height, model.contract.width).values()
    return 4 * max(torch.Size(shape[1:]).numel() for shape in found) * _MAPS_ALIVE


def _fit(
    found: list[LayerChoice], scheme: Scheme, budget: str, measure: Callable[[Scheme], int]
) -> list[LayerChoice]:
    """Choose bits, measure the file, and choose again if it is too large."""
    limit = parse_budget(budget, measure(scheme))
    packed = sum(layer.weights for layer in found) * stored_bits(min(CHOICES)) / 8
    fixed = measure(_fewest(scheme)) - packed
    left = limit - fixed
    for _ in range(_TRIES):
        chosen = allocate(found, lambda layer, bits: layer.weights * stored_bits(bits) / 8, left)
        size = measure(dataclasses.replace(scheme, layers=_as_layers(chosen, scheme)))
        if size <= limit:
            return chosen
        # not below the fewest bits: the operators that unpack 6 bits may be larger than what they save
        left = max(left - (size - limit), packed)
    raise RecipeError(f"budget {budget}: the smallest file found has {size:,} bytes")


def _fewest(scheme: Scheme) -> Scheme:
    return dataclasses.replace(scheme, bits=Bits(min(CHOICES), scheme.bits.activation))


def _wide(student: FaceModel) -> set[str]:
    """Names of the layers whose weights keep 8 bits."""
    return {
        name_of(node)
        for node, layer in module_nodes(student.graph)
        if isinstance(layer, QuantConv2d | QuantLinear) and layer.bits == 8
    }


def _as_layers(chosen: list[LayerChoice], scheme: Scheme) -> tuple[tuple[str, Bits], ...]:
    activation = scheme.bits.activation
    return tuple((c.name, Bits(c.bits, activation)) for c in chosen if c.bits != 8)


def _file_size(student: FaceModel) -> int:
    """Bytes of the file, which depend on the bits only."""
    return int(to_onnx(student).ByteSize())
