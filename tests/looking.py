"""Small networks of any number of values, as files that declare it or not."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import nn


def network(values: int) -> nn.Module:
    """A convolution, and a linear layer that gives so many values for a crop of 32x32."""
    torch.manual_seed(values)
    layers = [nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, values)).eval()


def file_of(module: nn.Module, path: Path, *, declared: bool = True) -> Path:
    """Export a network as PyTorch does; its output's shape is left out unless ``declared``."""
    torch.onnx.export(
        module,
        (torch.zeros(1, 3, 32, 32),),
        str(path),
        dynamo=False,
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
    )
    if not declared:
        model = onnx.load(str(path))
        model.graph.output[0].type.tensor_type.ClearField("shape")
        onnx.save(model, str(path))
    return path
