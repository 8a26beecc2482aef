"""A network with its contract, whatever file it came from."""

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
        contract: what the *file* expects; the graph holds its normalization inside.
        source: the file it came from, or None.
        quantized: True where the graph holds quantizers.
        node_names: names of the first nodes of an ONNX source, by which InsightFace's loader
            decides on its preprocessing.
        label: what it is called where there is no file.
        channels: output channels that layers had before pruning, by layer; empty for others.
        readings: preprocessings (``contract.PREPROCESS``) that networks of its kind come with, the
            contract's first; empty where it is known.
        notes: what a user should know about how it was read (assumptions, repairs).
        open_size: neither the file nor the user says height and width, and crops of any would do.
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
        """Embeddings (N,D) of uint8 or float pixels (N,3,H,W)."""
        result: Tensor = self.graph(pixels.float())
        return result

    @property
    def parameters(self) -> int:
        """Number of trained values, quantizers' scales and zero points not counted."""
        return sum(
            p.numel()
            for name, p in self.graph.named_parameters()
            if not name.endswith(("log_scale", ".zero_share"))
        )
