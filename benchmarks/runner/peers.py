"""Other people's tools on the crops that our ranges are searched on, as their users call them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from efquantface.contract import FaceContract
from efquantface.data.faces import load_faces, split
from efquantface.pipeline.start import calibration_index

from .suites import STATIC

Inputs = npt.NDArray[np.float32]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, inputs: Inputs) -> None:
        self.batches = iter([{name: inputs[i : i + 1]} for i in range(len(inputs))])

    def get_next(self) -> dict[str, Inputs] | None:
        return next(self.batches, None)


def path_of(method: str, teacher: Path, out: Path) -> Path:
    """Where the peer's file of the user's file lies."""
    suffix = ".onnx" if method in STATIC else ".xml"
    return out / f"{teacher.stem}_{method.replace(' ', '_')}{suffix}"


def make_file(method: str, teacher: Path, contract: FaceContract, faces: Path, out: Path) -> Path:
    """The peer's file, made where it is not there."""
    target = path_of(method, teacher, out)
    if target.is_file():
        return target
    loaded = load_faces(faces, contract)
    index = calibration_index(split(loaded, 0.1, 0)[0])
    inputs = contract.normalize(loaded.images[index])
    if method in STATIC:
        _static(teacher, target, method, inputs, contract.input_name)
    else:
        _nncf(teacher, target, inputs, contract)
    return target


def _static(teacher: Path, target: Path, method: str, inputs: Inputs, name: str) -> None:
    """quantize_static: QDQ, per channel, u8 activations, s8 weights."""
    quantize_static(
        str(teacher),
        str(target),
        _Reader(name, inputs),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method.split()[1]],
    )


def _nncf(teacher: Path, target: Path, inputs: Inputs, contract: FaceContract) -> None:
    """NNCF's post-training quantization, in OpenVINO (``pip install nncf``)."""
    import nncf  # type: ignore[import-not-found]
    import openvino as ov

    dataset = nncf.Dataset([inputs[i : i + 1] for i in range(len(inputs))])
    quantized = nncf.quantize(ov.convert_model(str(teacher)), dataset, subset_size=len(inputs))
    ov.save_model(quantized, str(target), compress_to_fp16=False)
    target.with_suffix(".contract.json").write_text(contract.to_json(), encoding="utf-8")
