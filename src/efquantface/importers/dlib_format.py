"""Reader of dlib's own serialization, for the face-recognition ResNet (dlib_face_recognition_*.dat).

The file nests layers. First come the version numbers of all layers from the loss to the input, then the
payloads of all layers from the input to the loss.

dlib packs an integer as a control byte (high bit: sign, low four bits: number of bytes) and
little-endian bytes. A float is an integer mantissa and an integer exponent. A tensor is a version, four
sizes and raw little-endian float32. Every byte is read and checked. A byte left over, missing or
different is an error with its offset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from efquantface.errors import ModelFileError

_MAX_TENSOR = 64 * 1024 * 1024  # elements; the real file's largest tensor has 589,824
_ADD_LAYER, _TAG_OR_SKIP = 2, 1
Float32 = npt.NDArray[np.float32]


@dataclass
class DlibLayer:
    """One layer with a payload: its serialized name, parameters (flat) and integer attributes."""

    name: str
    params: Float32
    attrs: dict[str, float] = field(default_factory=dict)


@dataclass
class DlibNet:
    """A parsed network: constants of the input, and layers from the input to the embedding."""

    header: tuple[int, ...]
    input_mean: tuple[float, float, float]
    input_size: tuple[int, int]
    layers: list[DlibLayer]


class _Reader:
    def __init__(self, data: bytes, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def fail(self, what: str) -> ModelFileError:
        return ModelFileError(
            f"{self.path}: {what} at byte {self.at}; not a whole dlib face-recognition file. "
            "Fetch it again with: efq models fetch"
        )

    def take(self, count: int) -> bytes:
        chunk = self.data[self.at : self.at + count]
        if len(chunk) != count:
            raise self.fail(f"truncated: {count} bytes wanted, {len(chunk)} left")
        self.at += count
        return chunk

    def integer(self) -> int:
        control = self.take(1)[0]
        size = control & 0x0F
        if control & 0x70 or not 1 <= size <= 8:
            raise self.fail(f"0x{control:02x} does not start a packed integer")
        value = int.from_bytes(self.take(size), "little")
        return -value if control & 0x80 else value

    def expect(self, wanted: int, what: str) -> None:
        got = self.integer()
        if got != wanted:
            raise self.fail(f"{what} is {got}, expected {wanted}")

    def real(self) -> float:
        mantissa, exponent = self.integer(), self.integer()
        if not -2000 < exponent < 2000:
            raise self.fail(f"float exponent {exponent} is out of range")
        return math.ldexp(float(mantissa), exponent)

    def boolean(self) -> bool:
        char = self.take(1)
        if char not in (b"0", b"1"):
            raise self.fail(f"{char!r} is not a boolean")
        return char == b"1"

    def string(self) -> str:
        size = self.integer()
        if not 0 < size < 64:
            raise self.fail(f"a layer name of {size} characters")
        raw = self.take(size)
        if not raw.isascii():
            raise self.fail(f"{raw!r} is not a layer name")
        return raw.decode("ascii")

    def tensor(self) -> Float32:
        self.expect(2, "tensor version")
        shape = [self.integer() for _ in range(4)]
        count = math.prod(shape)
        if min(shape) < 0 or count > _MAX_TENSOR:
            raise self.fail(f"tensor of impossible size {shape}")
        values = np.frombuffer(self.take(4 * count), "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise self.fail("tensor with values that are not finite")
        return values

    def alias(self) -> list[int]:
        """An alias_tensor: version, four sizes, and the empty tensor header that it wraps."""
        self.expect(1, "alias version")
        return [self.integer() for _ in range(4)]


def read_dlib(path: Path) -> DlibNet:
    """Parse a dlib face-recognition file.

    Raises:
        ModelFileError: the file is truncated, of another kind, or holds bytes left over.
    """
    reader = _Reader(path.read_bytes(), path)
    reader.expect(1, "loss version")
    header: list[int] = []
    loss = reader.string()
    if not loss.startswith("loss_metric"):
        raise reader.fail(f"the outer layer is {loss!r}, expected loss_metric")
    reader.real(), reader.real()  # margin and distance threshold of the training loss
    while True:
        version = reader.integer()
        header.append(version)
        if version not in (_ADD_LAYER, _TAG_OR_SKIP, 3):
            raise reader.fail(f"layer version {version} is not known")
        if version == 3:  # the lowest layer, which holds the input layer
            break
    mean, size = _input_layer(reader)
    payloads = sum(1 for version in header if version != _TAG_OR_SKIP)
    layers = [_layer(reader)]
    reader.expect(1, "sample expansion factor")  # only the lowest layer stores it
    layers += [_layer(reader) for _ in range(payloads - 1)]
    if reader.at != len(reader.data):
        raise reader.fail(f"{len(reader.data) - reader.at} bytes left over")
    return DlibNet(tuple(header), mean, size, layers)


def _input_layer(reader: _Reader) -> tuple[tuple[float, float, float], tuple[int, int]]:
    name = reader.string()
    if name != "input_rgb_image_sized":
        raise reader.fail(f"the input layer is {name!r}, expected input_rgb_image_sized")
    mean = (reader.real(), reader.real(), reader.real())
    size = (reader.integer(), reader.integer())
    if not (0 < size[0] <= 4096 and 0 < size[1] <= 4096):
        raise reader.fail(f"impossible input size {size}")
    return mean, size


def _layer(reader: _Reader) -> DlibLayer:
    """The payload of one add_layer: its details, three flags and three cached tensors."""
    name = reader.string()
    if name not in _DETAILS:
        raise reader.fail(f"layer {name!r} is not one of {sorted(_DETAILS)}")
    layer = _DETAILS[name](reader, name)
    for _ in range(3):  # training state, unused: set up, gradient stale, in place
        reader.boolean()
    for _ in range(3):  # gradient, cached output, parameter gradient: empty in a cleaned file
        if reader.tensor().size:
            raise reader.fail(f"layer {name!r} carries cached training tensors")
    return layer


def _conv(reader: _Reader, name: str) -> DlibLayer:
    params = reader.tensor()
    keys = ("filters", "nr", "nc", "stride_y", "stride_x", "padding_y", "padding_x")
    attrs: dict[str, float] = {key: reader.integer() for key in keys}
    weight, bias = reader.alias(), reader.alias()
    _multipliers(reader)
    if weight[0] != attrs["filters"] or weight[2:] != [attrs["nr"], attrs["nc"]]:
        raise reader.fail(f"filters {weight} do not fit the layer's attributes {attrs}")
    if math.prod(weight) + math.prod(bias) != params.size:
        raise reader.fail(f"{params.size} parameters for filters {weight} and biases {bias}")
    attrs["in_channels"] = weight[1]
    return DlibLayer(name, params, attrs)


def _affine(reader: _Reader, name: str) -> DlibLayer:
    params = reader.tensor()
    gamma, beta = reader.alias(), reader.alias()
    mode = reader.integer()
    if gamma != beta or 2 * math.prod(gamma) != params.size or mode not in (0, 1):
        raise reader.fail(f"affine of {params.size} parameters, gamma {gamma}, mode {mode}")
    return DlibLayer(name, params, {"channels": math.prod(gamma)})


def _pool(reader: _Reader, name: str) -> DlibLayer:
    keys = ("nr", "nc", "stride_y", "stride_x", "padding_y", "padding_x")
    return DlibLayer(name, _EMPTY, {key: reader.integer() for key in keys})


def _plain(reader: _Reader, name: str) -> DlibLayer:
    return DlibLayer(name, _EMPTY)


def _fc(reader: _Reader, name: str) -> DlibLayer:
    outputs, inputs = reader.integer(), reader.integer()
    params = reader.tensor()
    weight, _bias = reader.alias(), reader.alias()
    no_bias = reader.integer()
    _multipliers(reader)
    if weight[:2] != [inputs, outputs] or params.size != inputs * outputs or no_bias != 1:
        raise reader.fail(f"embedding layer of {params.size} parameters, {inputs} -> {outputs}")
    return DlibLayer(name, params, {"outputs": outputs, "inputs": inputs})


def _multipliers(reader: _Reader) -> None:
    for _ in range(4):  # learning-rate and weight-decay multipliers of weights and biases
        reader.real()


_EMPTY: Float32 = np.empty(0, np.float32)
_DETAILS = {
    "con_4": _conv,
    "affine_": _affine,
    "relu_": _plain,
    "add_prev_": _plain,
    "max_pool_2": _pool,
    "avg_pool_2": _pool,
    "fc_2": _fc,
}
