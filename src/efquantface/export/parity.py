"""Does the exported file compute what the student computed? Layer by layer, then end to end.

Layer by layer, the runtime's own integers are fed to each operator of the student, whose codes may
differ from the runtime's by one at most: the runtimes multiply and round in another order, so
a value that lies on the edge between two codes may fall to either. End to end the file is compared
with the student computed in integers (:mod:`emulate`), against what quantization itself cost. The
student in fake-quantized float32 stands beside it: rounding at the edges of codes cascades there so
far that computing it in float64 instead moves it as much as the file differs from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, fx, nn

from efquantface.errors import ParityError
from efquantface.export.emulate import emulate
from efquantface.export.operators import Executed, executed
from efquantface.export.portability import PORTABLE, overflowing, wrong_without_vnni
from efquantface.graph import ops
from efquantface.graph.graph import module_of, name_of
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.rows import mean_cosine
from efquantface.runtime.processor import lacks_vnni
from efquantface.runtime.sessions import onnxruntime_session

QUARTER = 0.25  # of the student's own distance to the teacher
CLOSE = 0.999  # mean cosine that is good enough however close the student is to the teacher
_TWICE = 2.0  # what two computations differ by is itself uncertain
_EMBEDDING_TOLERANCE = 1e-3  # of the largest value, for the float output of the last layer


@dataclass(frozen=True)
class LayerParity:
    """One layer fed the runtime's integers: largest difference in codes, share of codes that differ."""

    name: str
    max_codes: int
    differing: float


@dataclass(frozen=True)
class Parity:
    """The outcome of a check.

    Attributes:
        layers: one entry a quantized layer.
        embedding_error: largest relative difference of the last layer's float output.
        cosine: mean cosine between file and student in integers, end to end.
        fake_quantized_cosine: the same for the student in fake-quantized float32.
        student_cosine: mean cosine between student and teacher on the same crops.
        rounding: 1 - mean cosine between two correct computations of the student that round its
            islands of float differently; 0 for a student without.
        executed: what ONNX Runtime really executes of the file.
        overflowing: layers in which two products can exceed 16 bits; none in a portable file.
        without_vnni: mean cosine between the student's integers and those of a kernel with 16-bit sums
            (:mod:`sums16`), as every processor without VNNI computes the file.
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

    @property
    def portable(self) -> bool:
        """Whether the file gives the same integers on every processor."""
        return not self.overflowing

    @property
    def portability(self) -> str:
        """The same in words."""
        if self.portable:
            return PORTABLE
        return (
            f"{wrong_without_vnni(self.overflowing)} (mean cosine {self.without_vnni:.3f} to these)"
        )

    @property
    def problems(self) -> list[str]:
        """Why the file must not be delivered as good; empty where it is."""
        found = [
            f"layer {layer.name} differs by {layer.max_codes} codes"
            for layer in self.layers
            if layer.max_codes > 1
        ]
        if self.embedding_error > _EMBEDDING_TOLERANCE:
            found.append(f"the embedding layer differs by {self.embedding_error:.2g} (relative)")
        if self.portable and self.without_vnni < 1:
            found.append(
                f"16-bit sums change its embeddings (cosine {self.without_vnni:.6f}), though no layer "
                "should overflow"
            )
        allowed = max(QUARTER * (1 - self.student_cosine), _TWICE * self.rounding)
        if self.cosine < CLOSE and (1 - self.cosine) > allowed:
            found.append(
                f"end to end, 1 - cosine is {1 - self.cosine:.5f} between file and student, more "
                f"than a quarter of the student's own {1 - self.student_cosine:.5f} to the teacher"
                + (f" and than rounding explains ({self.rounding:.5f})" if self.rounding else "")
            )
        return found

    def check(self, path: Path) -> None:
        """Raise ParityError where there is a problem."""
        if self.problems:
            raise ParityError(f"{path}: fails the parity check: " + "; ".join(self.problems))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json."""
        return {**asdict(self), "portable": self.portable, "problems": self.problems}


def check_parity(
    student: FaceModel, path: Path, faces: npt.NDArray[np.uint8], teacher: npt.NDArray[np.float32]
) -> Parity:
    """Compare an exported file in ONNX Runtime with the student on real crops.

    Args:
        student: the quantized model that was exported.
        path: the exported file.
        faces: uint8 RGB crops (N,H,W,3); a few dozen are enough.
        teacher: the teacher's embeddings (N,D) of the same crops.
    """
    x = student.contract.normalize(faces)
    pixels = torch.from_numpy(student.contract.pixels(faces)).float()
    model = onnx.load(str(path))
    layers = tuple(overflowing(model))
    codes, embedding = _runtime_codes(model, student, x, exact_sums=bool(layers) and lacks_vnni())
    walker = _Walker(student.graph, codes)
    expected = walker.run(pixels)
    scale = float(np.abs(embedding).max()) or 1.0
    own = emulate(student, pixels).numpy()
    wide = emulate(student, pixels, wide=True).numpy() if has_islands(student) else own
    floating = student.embed_pixels(pixels).cpu().numpy()
    return Parity(
        layers=tuple(walker.layers),
        embedding_error=float(np.abs(expected.cpu().numpy() - embedding).max()) / scale,
        cosine=mean_cosine(own, embedding),
        fake_quantized_cosine=mean_cosine(floating, embedding),
        student_cosine=mean_cosine(own, teacher),
        rounding=1 - mean_cosine(own, wide),
        executed=executed(path),
        overflowing=layers,
        without_vnni=_without_vnni(student, pixels, own),
    )


def _without_vnni(student: FaceModel, pixels: Tensor, exact: npt.NDArray[np.float32]) -> float:
    """Mean cosine to exact sums; 1 where not one embedding differs."""
    found = emulate(student, pixels, sums16=True).numpy()
    return 1.0 if np.array_equal(found, exact) else mean_cosine(found, exact)


def check_layers(student: FaceModel, path: Path, count: int = 16) -> Parity:
    """Layer-by-layer check on random pixels, where no faces are at hand.

    Raises:
        ParityError: a layer differs by more than one code, or the embedding layer differs.
    """
    noise, own = on_noise(student, count)
    parity = check_parity(student, path, noise, own)
    problems = [p for p in parity.problems if not p.startswith("end to end")]
    if problems:
        raise ParityError(f"{path}: fails the parity check: " + "; ".join(problems))
    return parity


def on_noise(
    student: FaceModel, count: int = 16
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Random crops (N,H,W,3) and the student's embeddings (N,D) of them."""
    c = student.contract
    noise = np.random.default_rng(0).integers(0, 256, (count, c.height, c.width, 3), dtype=np.uint8)
    return noise, student.embed_pixels(torch.from_numpy(c.pixels(noise))).cpu().numpy()


def has_islands(student: FaceModel) -> bool:
    """Whether anything between the student's layers is computed in float."""
    return any(ops.is_island(module) for module in student.graph.modules())


def has_signed_codes(student: FaceModel) -> bool:
    """Whether the student's activation codes are symmetric."""
    return any(m.symmetric for m in student.graph.modules() if isinstance(m, ActivationQuantizer))


def _runtime_codes(
    model: onnx.ModelProto, student: FaceModel, x: npt.NDArray[np.float32], *, exact_sums: bool
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.float32]]:
    """Every quantizer's codes as the runtime computes them, by quantizer name, and the embedding."""
    names: dict[str, str] = {}
    for node in model.graph.node:
        label = node.name.partition("/")[2]
        if node.op_type in ("QuantizeLinear", "Clip") and label:
            names[label] = node.output[0]  # where an integer Clip follows, its output is last
    wanted = {
        name_of(n): names[name_of(n)]
        for n in student.graph.graph.nodes
        if isinstance(module_of(student.graph, n), ActivationQuantizer)
    }
    element = TensorProto.INT8 if has_signed_codes(student) else TensorProto.UINT8
    for tensor in wanted.values():
        model.graph.output.append(helper.make_tensor_value_info(tensor, element, None))
    session = onnxruntime_session(model.SerializeToString(), exact_sums=exact_sums)
    results = session.run(None, {student.contract.input_name: x})
    embedding = np.asarray(results[0], np.float32)
    return dict(zip(wanted, results[1:], strict=True)), embedding


class _Walker(fx.Interpreter):
    """Runs the student, replacing each quantizer's result by the runtime's after comparing them."""

    def __init__(self, gm: fx.GraphModule, codes: dict[str, npt.NDArray[Any]]) -> None:
        super().__init__(gm)
        self.codes, self.layers = codes, list[LayerParity]()

    def run_node(self, n: fx.Node) -> Any:
        module: nn.Module | None = module_of(self.module, n)  # type: ignore[arg-type]
        if not isinstance(module, ActivationQuantizer):
            return super().run_node(n)
        with torch.no_grad():
            source: Tensor = self.env[n.args[0]]  # type: ignore[index]
            mine = module.codes(source)
            theirs = torch.from_numpy(self.codes[name_of(n)]).to(mine.device)
            codes = (mine.int() - theirs.int()).abs()
            differing = float((codes > 0).float().mean())
            self.layers.append(LayerParity(name_of(n), int(codes.max()), differing))
            return module.dequantize(theirs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return super().run(*args, **kwargs)
