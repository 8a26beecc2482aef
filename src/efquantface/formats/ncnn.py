"""ncnn: ``.param`` and ``.bin`` in int8, of symmetric students, checked in ncnn itself.

ncnn's codes cannot all be the student's. It rounds in front of integer layers only (:mod:`ncnn_form`).
Some of its kernels divide only nearly, so values on the edge between two codes round to the other side.
So each layer is compared with exact arithmetic on the file's own values, and the embeddings with the
student in ncnn's form.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from efquantface.contract import FaceContract
from efquantface.errors import ContractError, ModelFileError, ParityError
from efquantface.export.parity import on_noise
from efquantface.export.stated import contract_differences
from efquantface.extras import wanted_for
from efquantface.files import write_bytes, write_text
from efquantface.formats.ncnn_form import for_ncnn, unwritten
from efquantface.formats.ncnn_walk import shaken, wrong_layers
from efquantface.formats.ncnn_writer import IN, OUT, Written, to_ncnn
from efquantface.formats.symmetric import needs_symmetric, wide_weights
from efquantface.formats.table import Choices
from efquantface.graph.model import FaceModel
from efquantface.rows import mean_cosine
from efquantface.runtime.sessions import Run, default_threads

_NAMED = 4  # operators that a refusal names
_CROPS = 4  # crops whose blobs are compared
# mean 1 - cosine to the form on noise. The second: so many times what another rounding moves the form.
# Seen: 2.3e-3 (mobileface2) and 4.2e-3 (y1), both as much as another rounding moves them
_CLOSE, _TIMES = 1e-2, 4
_LENGTH = 0.05  # of the mean length


def refused(model: FaceModel) -> str | None:
    """Why ncnn cannot carry a model: zero points, or operators without a layer; None where it can."""
    said = needs_symmetric(model, "ncnn")
    if said:
        return said
    lost = unwritten(for_ncnn(model))
    if not lost:
        return None
    more = f" and {len(lost) - _NAMED} more kinds" if len(lost) > _NAMED else ""
    return (
        f"has operators without a layer in ncnn: {', '.join(lost[:_NAMED])}{more}; ONNX, OpenVINO "
        "and TensorRT carry them"
    )


def write(model: FaceModel, files: Sequence[Path], choices: Choices) -> list[str]:
    """Write ``.param``, ``.bin`` and ``.contract.json``; returns lines to print.

    Raises:
        MissingPackageError: ncnn, which checks them, is not installed.
    """
    with wanted_for("--format ncnn"):
        import ncnn  # noqa: F401  # imported before anything is written

    target, weights, contract = files
    written = to_ncnn(for_ncnn(model))
    write_bytes(weights, bytes(written.network.weights))
    write_text(contract, model.contract.to_json())
    write_text(target, written.network.text())
    size = weights.stat().st_size / 1e6
    return [
        f"wrote {target}, its .bin ({size:.2f} MB) and .contract.json; blobs {IN} and {OUT}",
        *wide_weights(model),
        f"requantized inside ncnn: {len(written.steps)} layers; sums, PReLUs and poolings in float",
    ]


def check(model: FaceModel, files: Sequence[Path]) -> list[str]:
    """Compare the files with their student on random crops; returns lines to print.

    Raises:
        MissingPackageError: ncnn is not installed.
        ParityError: the files do not compute what the student computes in ncnn's form.
    """
    target, _, stored = files
    try:
        contract = FaceContract.read(stored)
        net = _loaded(target, 1)
    except (OSError, ContractError, ModelFileError) as error:
        raise ParityError(f"{target}: cannot be read back ({error})") from None
    said = contract_differences(contract, model.contract)
    if said:
        raise ParityError(f"{target}: {'; '.join(said)}")
    form = for_ncnn(model)
    written, (noise, own) = to_ncnn(form), on_noise(form)
    rows = open(target, 1)(contract.normalize(noise))
    pixels = torch.from_numpy(contract.pixels(noise[:_CROPS])).float()
    crops = [
        (pixels[i : i + 1], _blobs(net, target, written, contract.normalize(noise[i : i + 1])[0]))
        for i in range(_CROPS)
    ]
    found = wrong_layers(copy.deepcopy(form), written, crops)
    cosine = mean_cosine(rows, own)
    ratio = float(np.linalg.norm(rows, axis=1).mean() / np.linalg.norm(own, axis=1).mean())
    every = torch.from_numpy(contract.pixels(noise))
    if not 1 - cosine <= max(_CLOSE, _TIMES * (1 - mean_cosine(own, shaken(form, every)))):
        found.append(
            f"its embeddings have a mean cosine of only {cosine:.4f} to the student's form"
        )
    if not abs(ratio - 1) <= _LENGTH:
        found.append(f"its embeddings are {ratio:.3f} times as long as the student's")
    if found:
        raise ParityError(f"{target}: {'; '.join(found[:3])}; please report this")
    _, student = on_noise(model)
    return [
        f"in ncnn {len(written.blobs)} layers compute what the student's do; on random pixels, where "
        f"differences grow more than on faces, mean cosine {cosine:.4f} to the same network with ncnn's "
        f"roundings and {mean_cosine(rows, student):.4f} to the student"
    ]


def open(file: Path, threads: int | None = None) -> Run:
    """The files in ncnn, one crop after the other, with ncnn's default options.

    Raises:
        MissingPackageError: ncnn is not installed.
        ModelFileError: ncnn refuses the files.
    """
    net = _loaded(file, threads or default_threads(), kept=False)

    def call(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.stack([_extracted(net, file, crop, [OUT])[0].reshape(-1) for crop in x])

    return call


def _loaded(file: Path, threads: int, kept: bool = True) -> Any:
    """A network. Where ``kept``, all its blobs can be read, and none is in half precision."""
    with wanted_for("--format ncnn"):
        import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    if kept:
        net.opt.lightmode = False
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = False
    weights = file.with_suffix(".bin")
    if net.load_param(str(file)) or not weights.is_file() or net.load_model(str(weights)):
        raise ModelFileError(f"{file}: ncnn does not load it and its .bin")
    return net


def _extracted(
    net: Any, file: Path, crop: npt.NDArray[np.float32], blobs: Sequence[str]
) -> list[npt.NDArray[np.float32]]:
    import ncnn

    extractor = net.create_extractor()
    extractor.input(IN, ncnn.Mat(np.ascontiguousarray(crop)).clone())
    found = []
    for blob in blobs:
        failed, value = extractor.extract(blob)
        if failed:
            raise ModelFileError(f"{file}: ncnn gives no blob {blob!r}")
        found.append(np.array(value, np.float32))
    return found


def _blobs(
    net: Any, file: Path, written: Written, crop: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[np.float32]]:
    """All blobs that hold values of the form, by name."""
    names = sorted(set(written.blobs.values()))
    try:
        return dict(zip(names, _extracted(net, file, crop, names), strict=True))
    except ModelFileError as error:
        raise ParityError(str(error)) from None
