"""The image input of an ONNX file, and crops in its layout. Needs onnx and NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from efquantface.errors import ModelFileError
from efquantface.runtime.feeding import Layout, fed, layout_of

_ELEMENTS = {
    TensorProto.FLOAT: "tensor(float)",
    TensorProto.FLOAT16: "tensor(float16)",
    TensorProto.DOUBLE: "tensor(double)",
    TensorProto.UINT8: "tensor(uint8)",
}


@dataclass(frozen=True)
class ImageInput:
    """The one input of a face network.

    Attributes:
        layout: order and sizes of its axes.
        element: type of its values, by ONNX Runtime's name.
    """

    name: str
    layout: Layout
    element: str

    @property
    def takes_pixels(self) -> bool:
        """Whether its values are whole numbers, and so pixels."""
        return self.element == "tensor(uint8)"

    def crop(self, value: float, size: tuple[int, int]) -> npt.NDArray[np.generic]:
        """One crop of this height and width with all pixels ``value``, in the file's layout and type."""
        return fed(np.full((1, 3, *size), value, np.float32), self.layout, self.element)

    def notes(self) -> list[str]:
        """How the student's input differs from the file's, in sentences."""
        found = []
        if self.layout.channels == 1:
            found.append(
                "the file takes grey crops; the student takes RGB crops and converts them to grey "
                "(give it a grey crop as three equal channels)"
            )
        if self.layout.last:
            found.append(
                "the file takes channels last (N, height, width, channels); the student takes "
                "(N, 3, height, width)"
            )
        if self.takes_pixels:
            found.append("the file takes uint8 pixels; the student takes the same as float32")
        return found


def image_input(model: onnx.ModelProto, path: Path) -> ImageInput:
    """The one image input.

    Raises:
        ModelFileError: the file has several inputs, or one that is no image.
    """
    constants = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    if len(inputs) != 1:
        raise ModelFileError(
            f"{path}: has inputs {[i.name for i in inputs]}; one image input is expected"
        )
    tensor = inputs[0].type.tensor_type
    element = _ELEMENTS.get(tensor.elem_type)
    if element is None:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ModelFileError(
            f"{path}: the input is {kind}, an image of floats or uint8 is expected"
        )
    dims = [d.dim_value for d in tensor.shape.dim]
    layout = layout_of(dims)
    if layout is None:
        raise ModelFileError(
            f"{path}: the input has shape {dims}, a face network takes (N, 3, height, width), "
            "(N, height, width, 3), or one channel in place of three"
        )
    return ImageInput(str(inputs[0].name), layout, element)
