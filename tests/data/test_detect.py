"""A YuNet file through OpenCV: a stand-in network with YuNet's outputs, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from efquantface.data.align import align_folder
from efquantface.data.detect import YuNet
from efquantface.data.images import read_image, write_image
from efquantface.data.template import TEMPLATES
from efquantface.errors import ModelFileError

SIZE = 64


def fake_yunet(path: Path, cell: tuple[int, int] = (4, 4)) -> None:
    """Twelve outputs (cls, obj, bbox, kps at strides 8, 16, 32) that see one face of fixed place.

    At stride 8 a landmark is (cell + output) * 8 pixels; outputs depend on the input by 0 * x.
    """
    nodes, outputs, constants = [], [], []
    nodes.append(helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0))
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    target = TEMPLATES["arcface112"].array() * SIZE / 112
    for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            cells = SIZE // stride
            value = np.zeros((1, cells * cells, width), np.float32)
            if stride == 8:
                at = cell[1] * cells + cell[0]
                if kind in ("cls", "obj"):
                    value[0, at] = 0.95
                elif kind == "bbox":
                    value[0, at] = [0, 0, np.log(5), np.log(6)]
                else:
                    value[0, at] = ((target / 8) - np.array(cell)).reshape(-1)
            name = f"{kind}_{stride}"
            constants.append(numpy_helper.from_array(value, f"c_{name}"))
            nodes.append(helper.make_node("Add", [f"c_{name}", "nothing"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape))
    graph = helper.make_graph(
        nodes,
        "yunet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        outputs,
        [zero, *constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    onnx.save(model, str(path))


def test_yunet_finds_and_aligns(tmp_path: Path) -> None:
    fake_yunet(tmp_path / "yunet.onnx")
    detector = YuNet(tmp_path / "yunet.onnx")
    image = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    (face,) = detector(image)
    target = TEMPLATES["arcface112"].array() * SIZE / 112
    np.testing.assert_allclose(face.landmarks, target, atol=0.01)
    assert face.confidence == pytest.approx(0.95, abs=0.01)
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "a.png", image)
    (tmp_path / "photos" / "pairs.txt").write_text("1\n")
    report = align_folder(tmp_path / "photos", tmp_path / "crops", "arcface112", detector=detector)
    assert report.written == 1
    assert (tmp_path / "crops" / "pairs.txt").read_text() == "1\n"  # lists come along
    crop = read_image(tmp_path / "crops" / "a.png").astype(float)
    small = crop.reshape(SIZE // 4, 7, SIZE // 4, 7, 3).mean(axis=(1, 3))
    expected = image.reshape(SIZE // 4, 4, SIZE // 4, 4, 3).mean(axis=(1, 3))
    assert np.corrcoef(small[1:-1, 1:-1].ravel(), expected[1:-1, 1:-1].ravel())[0, 1] > 0.95


def test_files_that_are_no_yunet(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        YuNet(tmp_path / "gone.onnx")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match="no YuNet"):
        YuNet(tmp_path / "x.onnx")
