"""Attributes of ONNX nodes from the arguments of our operators."""

from __future__ import annotations

from typing import Any

from efquantface.graph import ops
from efquantface.quantize.layers import QuantConv2d


def conv_attributes(m: QuantConv2d | ops.Conv2d) -> dict[str, Any]:
    """Attributes of an ONNX convolution that differ from the defaults."""
    padding = [int(p) for p in m.padding]
    attrs: dict[str, Any] = {
        "strides": list(m.stride),
        "pads": padding + padding,
        "dilations": list(m.dilation),
        "group": m.groups,
    }
    defaults = {"strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1}
    return {key: value for key, value in attrs.items() if value != defaults[key]}


def pool_attributes(m: ops.MaxPool2d | ops.AvgPool2d) -> dict[str, Any]:
    """Attributes of an ONNX pooling."""
    attrs = m.attrs()
    return {
        "kernel_shape": attrs["kernel_size"],
        "strides": attrs["stride"],
        "pads": attrs["padding"] * 2,
        "ceil_mode": int(attrs["ceil_mode"]),
    }
