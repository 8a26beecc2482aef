"""Model files of other frameworks: recognized, and refused with what to do instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_ONNX = "give the float network that it was made from, as ONNX or as its PyTorch checkpoint"


@dataclass(frozen=True)
class _Format:
    name: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, int] | None  # bytes, and their offset
    way_back: str
    beside: str = ""  # suffix of a file that must lie beside it


_FORMATS = (
    _Format("ncnn's text graph", (".param",), (b"7767517", 0), _ONNX),
    _Format("ncnn's weights", (".bin",), None, _ONNX, beside=".param"),
    _Format(
        "TensorFlow Lite",
        (".tflite", ".lite"),
        (b"TFL3", 4),
        "convert it with: python -m tf2onnx.convert --tflite FILE --output FILE.onnx (a float file; "
        "one quantized already cannot be compressed again)",
    ),
    _Format("a TensorRT engine", (".engine", ".plan", ".trt"), (b"ftrt", 0), _ONNX),
    _Format(
        "MXNet's weights",
        (".params",),
        (b"\x12\x01\x00\x00", 0),
        "export it where MXNet is: mxnet.onnx.export_model('model-symbol.json', 'model-0000.params', "
        "[(1, 3, 112, 112)], numpy.float32, 'model.onnx'); InsightFace's model zoo has most networks "
        "as ONNX",
    ),
    _Format("MXNet's graph", ("-symbol.json",), None, "give the .onnx of the same network"),
    _Format("MNN", (".mnn",), None, _ONNX),
    _Format("RKNN", (".rknn",), (b"RKNN", 0), _ONNX),
    _Format("Core ML", (".mlmodel", ".mlpackage"), None, _ONNX),
    _Format("Caffe", (".caffemodel", ".prototxt"), None, "convert it to ONNX (caffe2onnx)"),
    _Format(
        "Keras", (".h5", ".keras"), (b"\x89HDF", 0), "export it with: python -m tf2onnx.convert"
    ),
    _Format("TensorFlow", (".pb",), None, "convert it with: python -m tf2onnx.convert"),
    _Format("OpenVINO", (".xml",), None, _ONNX),
    _Format("Paddle", (".pdmodel", ".pdiparams"), None, "convert it with paddle2onnx"),
)


def foreign_format(path: Path) -> str | None:
    """What kind of file of another framework this is, and what to do; None for any other file.

    A ``.bin`` is ncnn's only if a ``.param`` of the same name lies beside it.
    """
    with path.open("rb") as stream:
        head = stream.read(16)
    name = path.name.lower()
    for known in _FORMATS:
        told = known.magic is not None and head[known.magic[1] :].startswith(known.magic[0])
        named = name.endswith(known.suffixes)
        if named and known.beside:
            named = path.with_suffix(known.beside).is_file()
        if told or named:
            return f"this is {known.name}, which cannot be trained; {known.way_back}"
    return None
