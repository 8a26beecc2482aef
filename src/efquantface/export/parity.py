"""Does the exported file compute what the student computed? Only the file itself is read.

Four checks: what the file says of itself (:mod:`stated`); batches of several sizes (:mod:`alone`); each
layer on the file's own integers (:mod:`walk`); embeddings against the student in integers
(:mod:`emulate`).

Where all layers round alike, the embeddings must be equal up to float32's rounding. Where one does not,
as in islands, differences at the edges between codes grow from layer to layer. Computing the student in
float64 moves its embeddings as much, so that distance is the measure of what is allowed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from efquantface.errors import ParityError
from efquantface.export.alone import batch_problems, embed_alone
from efquantface.export.emulate import Emulator, emulate
from efquantface.export.operators import Executed, executed
from efquantface.export.portability import PORTABLE, overflowing, wrong_without_vnni
from efquantface.export.stated import contract_of, misstated, read_file
from efquantface.export.walk import Codes, LayerParity, walk
from efquantface.graph import ops
from efquantface.graph.graph import module_of, name_of, output_node
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantLinear
from efquantface.rows import mean_cosine
from efquantface.runtime.processor import lacks_vnni
from efquantface.runtime.sessions import onnxruntime_session

EXACT = 1e-6  # 1 - mean cosine, and relative error of the last layer, of a student in integers
_ROUNDED = 1e-3  # 1 - mean cosine where some values round to the other side of an edge
_TWICE = 2.0  # times; the distance of two computations is itself uncertain
_FLOAT_LAYER = 1e-5  # relative error of a last layer that sums in float
_FLOAT = 5e-5  # relative error of a network in float; the largest seen is 3e-6
_TINY = 1e-12
_SAFE_CROPS = 8  # enough to see that 16-bit sums change nothing of a portable student


@dataclass(frozen=True)
class Parity:
    """The outcome of a check.

    Attributes:
        layers: one entry per quantizer; none for a float network.
        embedding_error: largest difference between the file's embeddings and what the last layer gives
            for the file's own codes, divided by the largest value.
        cosine: mean cosine between the embeddings of the file and of the student in integers.
        fake_quantized_cosine: the same for the student in fake-quantized float32.
        student_cosine: mean cosine between student and teacher on the same crops.
        rounding: 1 - mean cosine between correct computations of the student that round values on an
            edge between two codes differently; 0 where the file rounds as the student in integers.
        executed: the operators that ONNX Runtime executes.
        overflowing: layers in which two products can exceed 16 bits; none in a portable file.
        without_vnni: mean cosine between the student with exact sums and with 16-bit sums
            (:mod:`sums16`). Processors without VNNI compute the file with the latter.
        misstated: what the file says wrongly, and batch sizes that change its embeddings.
        in_float: the last layer sums in float, or the whole network is float.
        signed: the activation codes are signed. Then the outputs that are asked for decide which layers
            run in integers, so layers and embeddings are from two sessions.
    """

    layers: tuple[LayerParity, ...]
    embedding_error: float
    cosine: float
    fake_quantized_cosine: float
    student_cosine: float
    rounding: float
    executed: Executed
    overflowing: tuple[str, ...] = ()
    without_vnni: float = 1.0
    misstated: tuple[str, ...] = ()
    in_float: bool = False
    signed: bool = False

    @property
    def portable(self) -> bool:
        """Whether the file gives the same integers on every processor."""
        return not self.overflowing

    @property
    def portability(self) -> str:
        """Whether the file is portable, in words."""
        if self.portable:
            return PORTABLE
        return (
            f"{wrong_without_vnni(self.overflowing)} (mean cosine {self.without_vnni:.3f} to these)"
        )

    @property
    def problems(self) -> list[str]:
        """Why the file must not be delivered; empty where it may."""
        found = [*self.misstated, *(layer.problem for layer in self.layers if layer.problem)]
        last = _FLOAT if not self.layers else _FLOAT_LAYER if self.in_float else EXACT
        if not self.embedding_error <= last:
            what = "the embedding layer differs" if self.layers else "its embeddings differ"
            found.append(f"{what} by {self.embedding_error:.2g} (relative)")
        if self.portable and not self.without_vnni >= 1:
            found.append(
                f"16-bit sums change its embeddings (cosine {self.without_vnni:.6f}), though no layer "
                "should overflow"
            )
        if not 1 - self.cosine <= self.allowed:
            found.append(
                f"end to end, 1 - cosine is {1 - self.cosine:.2g} between file and student, more than "
                f"the {self.allowed:.2g} that rounding explains"
            )
        return found

    @property
    def allowed(self) -> float:
        """The 1 - mean cosine of the embeddings that rounding explains."""
        if not self.layers:
            return EXACT
        if not self.signed and not any(layer.differing for layer in self.layers):
            return EXACT
        return max(_ROUNDED, _TWICE * self.rounding)

    def check(self, path: Path) -> None:
        """Raise ParityError where there is a problem, naming ``path``."""
        if self.problems:
            raise ParityError(f"{path}: fails the parity check: " + "; ".join(self.problems))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json."""
        return {**asdict(self), "portable": self.portable, "problems": self.problems}


def check_parity(
    student: FaceModel, path: Path, faces: npt.NDArray[np.uint8], teacher: npt.NDArray[np.float32]
) -> Parity:
    """Compare an exported file in ONNX Runtime with its student on real crops.

    Args:
        student: the model that was exported, quantized or float.
        path: the exported file.
        faces: uint8 RGB crops (N,H,W,3); a few dozen are enough.
        teacher: the teacher's embeddings (N,D) of the same crops.

    Raises:
        ParityError: the file cannot be compared. It does not load, or a quantizer is missing. Or its
            input, output or contract are missing or not the student's.
    """
    model = read_file(path)
    contract = contract_of(model, path)
    said = misstated(model, contract, student)
    if said:
        raise ParityError(f"{path}: fails the parity check: " + "; ".join(said))
    layers = tuple(overflowing(model))
    exact_sums = bool(layers) and lacks_vnni()
    rows, batches = embed_alone(path, contract, faces, exact_sums=exact_sums)
    pixels = torch.from_numpy(student.contract.pixels(faces)).float()
    floating = _in_torch(student, pixels)
    if not student.quantized:
        return Parity(
            layers=(),
            embedding_error=_relative(rows, floating),
            cosine=mean_cosine(rows, floating),
            fake_quantized_cosine=mean_cosine(rows, floating),
            student_cosine=mean_cosine(floating, teacher),
            rounding=0.0,
            executed=executed(path),
            misstated=tuple(batch_problems(rows, batches, _FLOAT)),
            in_float=True,
        )
    islands = has_islands(student)
    codes, beside = _runtime_codes(model, path, student, contract.normalize(faces), exact_sums)
    walked, own = walk(student, pixels, codes, islands=islands)
    signed = has_signed_codes(student)
    embedding_error, rounding = _relative(beside if signed else rows, own), 0.0
    # where all codes are equal, the walk's embeddings are the emulation's
    if signed or any(layer.differing for layer in walked):
        own = emulate(student, pixels).numpy()
        rounding = 1 - mean_cosine(own, floating)
        if islands:
            wide = emulate(student, pixels, wide=True).numpy()
            rounding = max(rounding, 1 - mean_cosine(own, wide))
    parity = Parity(
        layers=walked,
        embedding_error=embedding_error,
        cosine=mean_cosine(own, rows),
        fake_quantized_cosine=mean_cosine(floating, rows),
        student_cosine=mean_cosine(own, teacher),
        rounding=rounding,
        executed=executed(path),
        overflowing=layers,
        without_vnni=_without_vnni(student, pixels if layers else pixels[:_SAFE_CROPS], own),
        in_float=islands or signed or not _ends_in_layer(student),
        signed=signed,
    )
    found = batch_problems(rows, batches, float(np.sqrt(2 * parity.allowed)))
    return replace(parity, misstated=tuple(found))


def _in_torch(student: FaceModel, pixels: Tensor) -> npt.NDArray[np.float32]:
    """Embeddings (N,D) of the network in PyTorch."""
    return np.asarray(student.embed_pixels(pixels).cpu().numpy(), np.float32)


def _relative(found: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    """Largest difference, divided by the largest value."""
    return float(np.abs(found - right).max() / max(float(np.abs(right).max()), _TINY))


def _without_vnni(student: FaceModel, pixels: Tensor, exact: npt.NDArray[np.float32]) -> float:
    """Mean cosine between 16-bit and exact sums; 1 where no layer can overflow."""
    emulator = Emulator(student.graph, sums16=True)
    with torch.no_grad():
        found = emulator.run(pixels).float().numpy()
    return mean_cosine(found, exact[: len(pixels)]) if emulator.overflowed else 1.0


def check_layers(student: FaceModel, path: Path, count: int = 16) -> Parity:
    """:func:`check_parity` on random pixels, for use without faces.

    Args:
        student: the model that was exported.
        path: the exported file.
        count: how many random crops.

    Raises:
        ParityError: the file does not compute what the student computes.
    """
    noise, own = on_noise(student, count)
    parity = check_parity(student, path, noise, own)
    if parity.rounding:  # differences grow more on noise than on faces
        parity = replace(parity, cosine=1.0)
    parity.check(path)
    return parity


def on_noise(
    student: FaceModel, count: int = 16
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Random uint8 crops (N,H,W,3), always the same, and their float32 embeddings (N,D)."""
    c = student.contract
    noise = np.random.default_rng(0).integers(0, 256, (count, c.height, c.width, 3), dtype=np.uint8)
    return noise, student.embed_pixels(torch.from_numpy(c.pixels(noise))).cpu().numpy()


def has_islands(student: FaceModel) -> bool:
    """Whether the student has islands."""
    return any(ops.is_island(module) for module in student.graph.modules())


def _ends_in_layer(student: FaceModel) -> bool:
    """Whether an integer linear layer gives the embedding."""
    return isinstance(module_of(student.graph, output_node(student.graph)), QuantLinear)


def has_signed_codes(student: FaceModel) -> bool:
    """Whether the student's activation codes are symmetric."""
    return any(m.symmetric for m in student.graph.modules() if isinstance(m, ActivationQuantizer))


def _runtime_codes(
    model: onnx.ModelProto,
    path: Path,
    student: FaceModel,
    x: npt.NDArray[np.float32],
    exact_sums: bool,
) -> tuple[Codes, npt.NDArray[np.float32]]:
    """The codes that the runtime computes, by quantizer name, and the embeddings."""
    names: dict[str, str] = {}
    for node in model.graph.node:
        label = node.name.partition("/")[2]
        if node.op_type in ("QuantizeLinear", "Clip") and label:
            names[label] = node.output[0]  # a Clip behind the quantizer comes last
    quantizers = [
        name_of(n)
        for n in student.graph.graph.nodes
        if isinstance(module_of(student.graph, n), ActivationQuantizer)
    ]
    missing = [name for name in quantizers if name not in names]
    if missing:
        raise ParityError(
            f"{path}: fails the parity check: it holds no quantizer named {', '.join(missing[:3])}"
        )
    element = TensorProto.INT8 if has_signed_codes(student) else TensorProto.UINT8
    for name in quantizers:
        model.graph.output.append(helper.make_tensor_value_info(names[name], element, None))
    session = onnxruntime_session(model.SerializeToString(), exact_sums=exact_sums)
    wanted = [*(names[q] for q in quantizers), student.contract.output_name]
    *results, rows = session.run(wanted, {student.contract.input_name: x})
    return dict(zip(quantizers, results, strict=True)), rows
