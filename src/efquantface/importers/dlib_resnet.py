"""dlib's face-recognition ResNet (29 convolutions) as a canonical graph.

The layers of ``dnn_face_recognition_ex``: 7x7/2 convolution, 3x3/2 max pooling, 14 residual blocks,
global average pooling, and a fully connected layer without bias to 128 values. A block has two 3x3
convolutions, each followed by a per-channel affine. A block that halves the size has no padding in its
first convolution and averages its shortcut 2x2. It adds tensors of different sizes by appending zeros.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import fx

from efquantface.contract import FaceContract
from efquantface.errors import ModelFileError
from efquantface.graph import ops
from efquantface.graph.checking import check_runs
from efquantface.graph.graph import INPUT, GraphBuilder
from efquantface.importers.dlib_format import DlibLayer, DlibNet, read_dlib

_INPUT_STD = 256.0  # dlib subtracts the mean and divides by 256
LICENCE = "CC0 (dlib_face_recognition_resnet_model_v1, Davis King)"


def load_dlib_resnet(path: Path) -> tuple[fx.GraphModule, FaceContract]:
    """Read a dlib face-recognition file as a canonical graph over pixels, and its contract.

    Raises:
        ModelFileError: the file is damaged, or its layers are not those of dlib's ResNet.
    """
    net = read_dlib(path)
    if net.input_size[0] != net.input_size[1]:
        raise ModelFileError(f"{path}: input {net.input_size} is not square")
    graph = _Assembler(net, path).assemble()
    contract = FaceContract(
        height=net.input_size[0],
        width=net.input_size[1],
        embedding_size=int(net.layers[-1].attrs["outputs"]),
        mean=net.input_mean,
        std=(_INPUT_STD,) * 3,
        template="dlib150",
        source="dlib file",
        licence=LICENCE,
    )
    check_runs(graph, contract, str(path))
    return graph, contract


class _Assembler:
    """Reads the layers from the input on, and checks that each is the one of dlib's network."""

    def __init__(self, net: DlibNet, path: Path) -> None:
        self.layers, self.path, self.next = net.layers, path, 0
        self.builder = GraphBuilder()
        self.at = self.builder.add(
            "normalize", ops.Normalize(net.input_mean, (_INPUT_STD,) * 3), INPUT
        )
        # channels and size of the tensor at ``self.at``; dlib's add pads by these
        self.channels, self.size = 3, net.input_size[0]

    def assemble(self) -> fx.GraphModule:
        self.convolution("stem")
        self.relu("stem_relu")
        self.max_pool("stem_pool")
        block = 0
        while self.peek() == "con_4":
            self.block(f"block{block}")
            block += 1
        if self.peek() != "avg_pool_2":
            raise self.fail("global average pooling")
        self.pop("avg_pool_2")
        self.at = self.builder.add("pool", ops.GlobalAvgPool(), self.at)
        self.at = self.builder.add("flatten", ops.Flatten(), self.at)
        layer = self.pop("fc_2")
        shape = (int(layer.attrs["inputs"]), int(layer.attrs["outputs"]))
        weight = torch.from_numpy(np.ascontiguousarray(layer.params.reshape(shape).T))
        self.at = self.builder.add("embedding", ops.linear_from(weight, None), self.at)
        if self.next != len(self.layers):
            raise self.fail("the end of the network")
        return self.builder.finish(self.at)

    def peek(self) -> str:
        return self.layers[self.next].name if self.next < len(self.layers) else "nothing"

    def fail(self, wanted: str) -> ModelFileError:
        return ModelFileError(
            f"{self.path}: layer {self.next} is {self.peek()!r} where dlib's face-recognition "
            f"ResNet has {wanted}"
        )

    def pop(self, name: str) -> DlibLayer:
        if self.peek() != name:
            raise self.fail(name)
        self.next += 1
        return self.layers[self.next - 1]

    def convolution(self, name: str) -> None:
        """A convolution and the affine behind it."""
        layer = self.pop("con_4")
        a = {k: int(v) for k, v in layer.attrs.items()}
        if a["in_channels"] != self.channels:
            raise ModelFileError(
                f"{self.path}: {name} takes {a['in_channels']} channels, {self.channels} arrive"
            )
        params = torch.from_numpy(layer.params)
        split = a["filters"] * a["in_channels"] * a["nr"] * a["nc"]
        weight = params[:split].view(a["filters"], a["in_channels"], a["nr"], a["nc"])
        stride, padding = (a["stride_y"], a["stride_x"]), (a["padding_y"], a["padding_x"])
        conv = ops.conv_from(weight, params[split:], stride=stride, padding=padding)
        self.at = self.builder.add(name, conv, self.at)
        self.channels = a["filters"]
        self.size = (self.size + 2 * padding[0] - a["nr"]) // stride[0] + 1
        affine = ops.Affine(self.channels)
        gamma_beta = torch.from_numpy(self.pop("affine_").params).view(2, self.channels)
        with torch.no_grad():
            affine.weight.copy_(gamma_beta[0])
            affine.bias.copy_(gamma_beta[1])
        self.at = self.builder.add(f"{name}_affine", affine, self.at)

    def relu(self, name: str) -> None:
        self.pop("relu_")
        self.at = self.builder.add(name, ops.Clamp(0.0, None), self.at)

    def max_pool(self, name: str) -> None:
        a = {k: int(v) for k, v in self.pop("max_pool_2").attrs.items()}
        pool = ops.MaxPool2d((a["nr"], a["nc"]), (a["stride_y"], a["stride_x"]))
        self.at = self.builder.add(name, pool, self.at)
        self.size = (self.size - a["nr"]) // a["stride_y"] + 1

    def block(self, name: str) -> None:
        """A residual block. Its shortcut is averaged where average pooling follows."""
        shortcut, shortcut_channels, shortcut_size = self.at, self.channels, self.size
        self.convolution(f"{name}_conv1")
        self.relu(f"{name}_relu1")
        self.convolution(f"{name}_conv2")
        if self.peek() == "avg_pool_2":
            a = {k: int(v) for k, v in self.pop("avg_pool_2").attrs.items()}
            pool = ops.AvgPool2d((a["nr"], a["nc"]), (a["stride_y"], a["stride_x"]))
            shortcut = self.builder.add(f"{name}_shortcut", pool, shortcut)
            shortcut_size = (shortcut_size - a["nr"]) // a["stride_y"] + 1
        self.pop("add_prev_")
        channels, size = max(self.channels, shortcut_channels), max(self.size, shortcut_size)
        main = self.padded(f"{name}_pad", self.at, channels - self.channels, size - self.size)
        shortcut = self.padded(
            f"{name}_shortcut_pad",
            shortcut,
            channels - shortcut_channels,
            size - shortcut_size,
        )
        self.at = self.builder.add(f"{name}_add", ops.Add(), main, shortcut)
        self.channels, self.size = channels, size
        self.relu(f"{name}_relu2")

    def padded(self, name: str, source: str, channels: int, size: int) -> str:
        if channels == 0 and size == 0:
            return source
        return self.builder.add(name, ops.ZeroPad(channels, bottom=size, right=size), source)
