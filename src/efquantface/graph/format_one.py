"""Checkpoints of format 1, which has other names of quantizers. Only this module knows them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

_TENSORS = {
    "log_step": "log_scale",
    "zero": "zero_share",
    "input_step": "input_scale",
    "min_step": "min_scale",
}
_ATTRIBUTES = {
    "input_quantizer": {"step": "scale"},
    "quant_affine": {"falling": "nonpositive"},
}


def translated_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with their names of format 2."""
    found = {}
    for key, value in tensors.items():
        node, dot, name = key.rpartition(".")
        found[node + dot + _TENSORS.get(name, name)] = value
    return found


def translated_nodes(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Plain-data nodes with their attributes of format 2."""
    found = []
    for node in nodes:
        names = _ATTRIBUTES.get(node["kind"], {})
        attrs = {names.get(name, name): value for name, value in node["attrs"].items()}
        found.append({**node, "attrs": attrs})
    return found
