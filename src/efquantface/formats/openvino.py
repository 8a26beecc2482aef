"""OpenVINO IR from a student, with quantizers placed for OpenVINO, and compared with the student.

OpenVINO computes a PReLU inside the integer convolution in front of it, in float between accumulator
and codes. The quantizers that ONNX Runtime needs on the convolution's output and on the product would
prevent that, so they are taken out. The quantizer behind the PReLU stays as it was trained.

OpenVINO computes a sum inside a convolution in front of it, too, and skips the rounding of the
convolution's own quantizer. That quantizer is taken out as well, so that file and network agree.

Nothing has to be calibrated again: with fewer roundings the student is nearer to its float form.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from efquantface.contract import FaceContract
from efquantface.errors import ContractError, ModelFileError, ParityError, RuntimeMissingError
from efquantface.export.alone import batch_problems, in_batches
from efquantface.export.onnx_writer import to_onnx, write_onnx
from efquantface.export.parity import on_noise
from efquantface.export.portability import PORTABLE, overflowing, wrong_without_vnni
from efquantface.export.stated import contract_differences
from efquantface.files import write_text, writing
from efquantface.formats.table import Choices
from efquantface.graph import ops
from efquantface.graph.graph import add_module, module_nodes, module_of, tidy
from efquantface.graph.model import FaceModel
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d
from efquantface.rows import cosines, mean_cosine
from efquantface.runtime.backends import contract_beside
from efquantface.runtime.processor import lacks_vnni
from efquantface.runtime.sessions import Run, run_openvino

# 1 - cosine on noise. Differences grow more there than on faces. So the second is allowed as well: so
# many times the distance of the network's own float32 and float64. Seen: 2e-4 at most for small
# networks; 1.0 to 1.7 times for y1, mobileface2 and EdgeFace
_CLOSE, _TIMES = 1e-3, 4


def for_openvino(student: FaceModel) -> tuple[FaceModel, int]:
    """The student as OpenVINO computes it, and how many PReLUs became part of a convolution.

    Each integer PReLU behind a convolution becomes one operator. A convolution that only a sum reads has
    no quantizer of its own.
    """
    gm = copy.deepcopy(student.graph)
    count = 0
    for node, module in module_nodes(gm):
        found = _integer_prelu(gm, node) if isinstance(module, ops.Add) else None
        if found is None:
            continue
        convolution, product = found
        prelu = ops.PReLU(product.channels)
        with torch.no_grad():
            prelu.slope.copy_(1 + product.quantized_weight())
        name = add_module(gm, f"{node.target}_prelu", prelu)
        with gm.graph.inserting_after(node):
            fused = gm.graph.call_module(name, (convolution,))
        node.replace_all_uses_with(fused)
        count += 1
    for node, module in module_nodes(gm):
        for codes in node.all_input_nodes if isinstance(module, ops.Add) else ():
            source = _quantized_convolution(gm, codes)
            if source is not None and len(codes.users) == len(source.users) == 1:
                codes.replace_all_uses_with(source)
    tidy(gm)
    made = FaceModel(gm, student.contract, student.source, True, student.node_names)
    return made, count


def refused(model: FaceModel) -> str | None:
    """None: OpenVINO can carry every operator."""
    return None


def write(model: FaceModel, files: Sequence[Path], choices: Choices) -> list[str]:
    """Write the .xml, its .bin and .contract.json; returns lines to print.

    Raises:
        RuntimeMissingError: OpenVINO is not installed.
    """
    try:
        import openvino as ov
    except ImportError:
        raise RuntimeMissingError(
            "OpenVINO is not installed; pip install 'efquantface[openvino]'"
        ) from None
    target, _, contract = files
    form, count = _placed(model)
    temporary = target.with_suffix(".export.onnx")
    try:
        # OpenVINO does not fold the operators that unpack 6-bit weights
        write_onnx(form, temporary, packed=False)
        with writing(target):
            ov.save_model(ov.convert_model(str(temporary)), str(target), compress_to_fp16=False)
        write_text(contract, model.contract.to_json())
    finally:
        temporary.unlink(missing_ok=True)
    return [
        f"wrote {target} and its .bin and .contract.json",
        f"placed for OpenVINO: {count} PReLUs inside their convolutions",
    ]


def check(model: FaceModel, files: Sequence[Path]) -> list[str]:
    """Compare the files with their network on random crops; returns lines to print.

    Raises:
        ParityError: the files' embeddings are not the network's.
    """
    form, _ = _placed(model)
    layers = overflowing(to_onnx(form, packed=False))
    try:
        cosine = check_openvino(form, files[0])
    except ParityError as error:
        why = "please report this"
        if layers and lacks_vnni():
            why = (
                f"this processor has no VNNI, and 16-bit sums overflow in {len(layers)} layers of a "
                "student of full range; compress without --full-range, or export on a processor with it"
            )
        raise ParityError(f"{error}; {why}") from None
    said = wrong_without_vnni(layers) if layers else PORTABLE
    return [
        f"mean cosine {cosine:.5f} to the same network in PyTorch on random pixels",
        *((said,) if model.quantized else ()),
    ]


def open(file: Path, threads: int | None = None) -> Run:
    """The files in OpenVINO.

    Raises:
        RuntimeMissingError: OpenVINO is not installed.
        ModelFileError: OpenVINO refuses the files.
    """
    return run_openvino(file, threads)


def _placed(model: FaceModel) -> tuple[FaceModel, int]:
    """The network that is written, and its PReLUs inside convolutions."""
    return for_openvino(model) if model.quantized else (model, 0)


def check_openvino(form: FaceModel, target: Path) -> float:
    """Compare a written file, opened with the contract beside it, with its network.

    Args:
        form: the network that was written (:func:`for_openvino`).
        target: the .xml.

    Returns:
        The mean cosine between the embeddings of both.

    Raises:
        ParityError: the file has another contract, or its embeddings are not the network's.
    """
    stored = contract_beside(target)
    try:
        contract = FaceContract.read(stored)
        run = run_openvino(target)
    except (OSError, ContractError, ModelFileError) as error:
        raise ParityError(f"{target}: cannot be read back ({error})") from None
    said = contract_differences(contract, form.contract)
    if said:
        raise ParityError(f"{target}: {'; '.join(said)}")
    noise, own = on_noise(form)
    rows, batches = in_batches(run, target, contract, noise)
    cosine, usual = mean_cosine(own, rows), float(np.median(1 - cosines(own, rows)))
    explained = _TIMES * (1 - mean_cosine(own, _in_float64(form, noise)))
    # codes of few bits are wide: one on the other side of an edge moves its crop far; most have none
    usually, allowed = (max(close, explained) for close in (_CLOSE, _CLOSE * _code_width(form)))
    found = batch_problems(rows, batches, float(np.sqrt(2 * allowed)))
    ratio = float(np.linalg.norm(rows, axis=1).mean() / np.linalg.norm(own, axis=1).mean())
    if not (1 - cosine <= allowed and usual <= usually):
        found.append(
            f"its embeddings have a mean cosine of only {cosine:.4f} to the same network's in "
            "PyTorch on random pixels"
        )
    if not abs(ratio - 1) <= np.sqrt(allowed):
        found.append(
            f"its embeddings are {ratio:.3f} times as long as the same network's in PyTorch"
        )
    if found:
        raise ParityError(f"{target}: {'; '.join(found)}")
    return cosine


def _code_width(form: FaceModel) -> float:
    """How many times as wide as 8-bit codes those of the fewest activation bits are."""
    quantizers = (m for m in form.graph.modules() if isinstance(m, ActivationQuantizer))
    return float(2 ** (8 - min((q.bits for q in quantizers), default=8)))


@torch.no_grad()
def _in_float64(form: FaceModel, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Embeddings (N,D) of a network in float64, where some values round to the other side."""
    pixels = torch.from_numpy(form.contract.pixels(faces)).double()
    found: npt.NDArray[np.float64] = copy.deepcopy(form.graph).double()(pixels).numpy()
    return found


def _integer_prelu(gm: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, QuantAffine] | None:
    """(convolution, product) where ``node`` is the sum of a PReLU split by :func:`split_prelu`."""
    first, second = node.args
    assert isinstance(first, fx.Node)
    assert isinstance(second, fx.Node)
    for x, product_codes in ((first, second), (second, first)):
        product = _source(gm, product_codes, ActivationQuantizer)
        source = _source(gm, product, QuantAffine)
        if source is None or product is None:
            continue
        whole = source is x
        quantizer, affine = module_of(gm, product_codes), module_of(gm, product)
        assert isinstance(quantizer, ActivationQuantizer)
        assert isinstance(affine, QuantAffine)
        clamp = module_of(gm, source)
        if isinstance(clamp, ops.Clamp) and clamp.high == 0:
            whole = source.args[0] is x
        elif not quantizer.rectified or bool((affine.quantized_weight() > 0).any()):
            continue  # not a PReLU's
        convolution = _quantized_convolution(gm, x)
        if whole and convolution is not None:
            return convolution, affine
    return None


def _quantized_convolution(gm: fx.GraphModule, codes: fx.Node) -> fx.Node | None:
    """The convolution whose output ``codes`` quantizes; None where it quantizes something else."""
    source = _source(gm, codes, ActivationQuantizer)
    found = source is not None and isinstance(module_of(gm, source), QuantConv2d)
    return source if found else None


def _source(gm: fx.GraphModule, node: fx.Node | None, kind: type) -> fx.Node | None:
    """The node that ``node`` reads, if its module is of ``kind``; None otherwise."""
    if node is None or not isinstance(module_of(gm, node), kind):
        return None
    source = node.args[0]
    return source if isinstance(source, fx.Node) else None
