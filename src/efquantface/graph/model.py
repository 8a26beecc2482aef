"""A network with its contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, fx

from efquantface.contract import FaceContract


@dataclass
class FaceModel:
    """A face-recognition network as a canonical graph over pixels.

    Attributes:
        graph: takes float32 pixels (N,3,H,W) in 0..255, in the contract's channel order, and gives
            float32 embeddings (N,D), not normalized.
        contract: of the *file*. The graph contains the contract's normalization.
        source: the file that it was read from, or None.
        quantized: whether the graph holds quantizers.
        node_names: names of the first nodes of an ONNX source. InsightFace's loader infers the
            normalization from them.
        label: its name where there is no file.
        channels: the teacher's output channels of pruned layers, by layer; empty for others.
        readings: normalizations (``contract.PREPROCESS``) of networks of its kind, the contract's first;
            empty where the normalization is known.
        notes: sentences for the user on how it was read (assumptions, repairs).
        open_size: neither file nor user gives height and width, and the network takes any.
    """

    graph: fx.GraphModule
    contract: FaceContract
    source: Path | None = None
    quantized: bool = False
    node_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=dict)
    label: str = "network"
    readings: tuple[str, ...] = ()
    open_size: bool = False

    @property
    def name(self) -> str:
        """File name, or the class of the module it was traced from."""
        return self.source.name if self.source else self.label

    @torch.no_grad()
    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings (N,D) float32 of uint8 or float pixels (N,3,H,W), 0 to 255."""
        result: Tensor = self.graph(pixels.float())
        return result

    @property
    def parameters(self) -> int:
        """Number of trained values, without the quantizers' scales and zero points."""
        return sum(
            p.numel()
            for name, p in self.graph.named_parameters()
            if not name.endswith(("log_scale", ".zero_share"))
        )
