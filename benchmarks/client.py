"""One client on one file, started by benchmarks/clients.py, arm.py and litert.py where it is installed.

    python client.py CLIENT FILE CROPS.npy CONTRACT.json OUT.npz

CROPS are uint8 RGB (N,H,W,3); CONTRACT is a file's metadata. A client feeds crops as its own API does:
InsightFace and uniface take BGR images, and InsightFace guesses mean and std; the others feed what the
contract says, as a reader of it would. OUT holds `embeddings` (N,D), or `refused`, the client's words;
the other arrays are notes (what was guessed, which precision). Needs NumPy and the client, nothing else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 32
# InsightFace's five points of an ArcFace crop: its alignment of them leaves a crop as it is
POINTS = (38.2946, 51.6963, 73.5318, 51.5014, 56.0252, 71.7366, 41.5493, 92.3655, 70.7299, 92.2041)
SIDE = 128  # of the image that holds the crop: a detector's smallest input
STRIDES = (8, 16, 32)

Contract = dict[str, Any]
Found = dict[str, Any]


def feed(crops: Any, contract: Contract) -> Any:
    """Crops (N,H,W,3) as the network's float32 input, by its contract."""
    channels = crops if contract["color"] == "RGB" else crops[..., ::-1]
    mean, std = (np.asarray(contract[k], np.float32) for k in ("mean", "std"))
    scaled = (channels.astype(np.float32) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def batches(crops: Any, run: Callable[[Any], Any], size: int = BATCH) -> Any:
    """Embeddings (N,D) of ``run``, which takes up to ``size`` crops."""
    parts = [np.asarray(run(crops[i : i + size])) for i in range(0, len(crops), size)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts])


def onnxruntime(file: Path, crops: Any, contract: Contract) -> Found:
    """A session without an option."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(file))
    source = session.get_inputs()[0]
    size = source.shape[0] if isinstance(source.shape[0], int) else BATCH

    def run(part: Any) -> Any:
        return session.run(None, {source.name: feed(part, contract)})[0]

    return {"embeddings": batches(crops, run, size)}


def codes(file: Path, crops: Any, contract: Contract) -> Found:
    """Every output of the file by its name, in a session without an option."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(file))
    names = [o.name for o in session.get_outputs()]
    results = session.run(names, {session.get_inputs()[0].name: feed(crops, contract)})
    return {"embeddings": results[0], **dict(zip(names[1:], results[1:], strict=True))}


def litert(file: Path, crops: Any, contract: Contract) -> Found:
    """A .tflite in LiteRT as it is opened by default, all crops at once; outputs by their names."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    source = interpreter.get_input_details()[0]["index"]
    x = np.ascontiguousarray(feed(crops, contract).transpose(0, 2, 3, 1))
    interpreter.resize_tensor_input(source, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source, x)
    interpreter.invoke()
    details = interpreter.get_output_details()
    first, *others = (interpreter.get_tensor(output["index"]) for output in details)
    names = (output["name"] for output in details[1:])
    return {"embeddings": first, **dict(zip(names, others, strict=True))}


def insightface(file: Path, crops: Any, contract: Contract) -> Found:
    """``model_zoo.get_model`` and ``get_feat``."""
    from insightface.model_zoo import get_model

    model = get_model(str(file))
    if model is None:
        return {"refused": f"get_model gives None: no model of {crops.shape[2]}x{crops.shape[1]}"}

    def run(part: Any) -> Any:
        return model.get_feat(list(part[..., ::-1]))

    size = BATCH if not isinstance(model.input_shape[0], int) else model.input_shape[0]
    return {"embeddings": batches(crops, run, size), **_guess(model)}


def face_analysis(file: Path, crops: Any, contract: Contract) -> Found:
    """``FaceAnalysis`` on a folder of a detector and the file, image by image.

    InsightFace's detectors have to be downloaded. One in their form stands in for them: it finds one
    face, where the crop lies.
    """
    from insightface.app import FaceAnalysis

    with tempfile.TemporaryDirectory() as folder:
        _write_detector(Path(folder) / "detector.onnx")
        (Path(folder) / "recognizer.onnx").symlink_to(file.resolve())
        app = FaceAnalysis(folder)
        if "recognition" not in app.models:
            return {"refused": "FaceAnalysis finds no recognition model in the folder"}
        app.prepare(ctx_id=-1, det_size=(SIDE, SIDE))
        rows = []
        for crop in crops:
            image = np.zeros((SIDE, SIDE, 3), np.uint8)
            image[: crop.shape[0], : crop.shape[1]] = crop[..., ::-1]
            (face,) = app.get(image)
            rows.append(face.embedding)
        return {"embeddings": np.stack(rows), **_guess(app.models["recognition"])}


def uniface(file: Path, crops: Any, contract: Contract) -> Found:
    """A recognizer of its own: uniface's base class with the contract's mean, std and size."""
    from uniface.recognition.base import BaseRecognizer, PreprocessConfig

    def constant(key: str) -> Any:
        values = contract[key]
        return values[0] if len(set(contract["std"])) == len(set(contract["mean"])) == 1 else values

    class Recognizer(BaseRecognizer):
        def __init__(self) -> None:
            size = (contract["height"], contract["width"])
            wanted = PreprocessConfig(constant("mean"), constant("std"), size)
            super().__init__(model_path=str(file), preprocessing=wanted)

    if contract["color"] != "RGB":
        return {"refused": "uniface feeds RGB alone"}
    model = Recognizer()
    return {
        "embeddings": batches(crops, lambda part: model.get_embedding(part[0][..., ::-1]), size=1)
    }


def opencv(file: Path, crops: Any, contract: Contract) -> Found:
    """``cv2.dnn.readNetFromONNX`` as it is called by default."""
    return _opencv(file, crops, contract, "ENGINE_AUTO")


def opencv_classic(file: Path, crops: Any, contract: Contract) -> Found:
    """The same with the engine of OpenCV 4."""
    return _opencv(file, crops, contract, "ENGINE_CLASSIC")


def _opencv(file: Path, crops: Any, contract: Contract, engine: str) -> Found:
    import cv2

    net = cv2.dnn.readNetFromONNX(str(file), getattr(cv2.dnn, engine))

    def run(part: Any) -> Any:
        net.setInput(feed(part, contract))
        return net.forward().copy()

    return {"embeddings": batches(crops, run)}


def openvino(file: Path, crops: Any, contract: Contract) -> Found:
    """The .onnx compiled without a property: in bfloat16 on processors that have it."""
    return _openvino(file, crops, contract, {})


def openvino_float32(file: Path, crops: Any, contract: Contract) -> Found:
    """The same, what is not in integers in float32."""
    return _openvino(file, crops, contract, {"INFERENCE_PRECISION_HINT": "f32"})


def _openvino(file: Path, crops: Any, contract: Contract, properties: dict[str, str]) -> Found:
    import openvino as ov

    compiled = ov.Core().compile_model(str(file), "CPU", properties)
    found = batches(crops, lambda part: compiled(feed(part, contract))[0])
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return {"embeddings": found, "precision": precision}


CLIENTS = {
    f.__name__: f
    for f in (
        onnxruntime,
        codes,
        litert,
        insightface,
        face_analysis,
        uniface,
        opencv,
        opencv_classic,
        openvino,
        openvino_float32,
    )
}


def _guess(model: Any) -> Found:
    return {"mean": model.input_mean, "std": model.input_std}


def _write_detector(path: Path) -> None:
    """A network with SCRFD's outputs: scores, boxes and points of three strides, one face."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    outputs, constants = [], []
    for kind, width in (("score", 1), ("box", 4), ("points", 10)):
        for stride in STRIDES:
            values = np.zeros((2 * (SIDE // stride) ** 2, width), np.float32)
            if stride == STRIDES[0]:  # the anchor in the corner, distances in strides
                face = {"score": [0.9], "box": [0, 0, 14, 14], "points": np.divide(POINTS, stride)}
                values[0] = face[kind]
            name = f"{kind}{stride}"
            constants.append(
                helper.make_node(
                    "Constant", [], [name], value=numpy_helper.from_array(values, f"{name}_value")
                )
            )
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    graph = helper.make_graph(constants, "detector", [image], outputs)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("client", choices=CLIENTS)
    for name in ("file", "crops", "contract", "out"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    contract = json.loads(args.contract.read_text())
    try:
        found = CLIENTS[args.client](args.file, np.load(args.crops), contract)
    except Exception as error:  # every client has classes of its own; the words are the result
        found = {"refused": f"{type(error).__name__}: {error}"}
    np.savez(args.out, **found)


if __name__ == "__main__":
    main()
