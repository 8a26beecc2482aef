"""Channel groups, found by torch-pruning on a twin of the graph.

torch-pruning knows PyTorch's own layers only. So the twin is a copy with PyTorch's layers in place of
our operators. A scale and shift per channel becomes a BatchNorm without normalization. After pruning the
twin is turned back into a canonical graph.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import fx, nn

from efquantface.errors import ModelFileError
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, module_of, name_of, output_name, tidy
from efquantface.prune.shortcuts import without_zero_channels

_LAYERS = nn.Conv2d | nn.Linear
_PASSES_CHANNELS = (
    *(
        ops.Add,
        ops.Affine,
        ops.Clamp,
        ops.Flatten,
        ops.GlobalAvgPool,
        ops.Multiply,
        ops.PReLU,
        ops.Gelu,
        ops.ZeroPad,
    ),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.Sigmoid),
)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of one or more tensors that can be removed only together, as along residual shortcuts.

    Attributes:
        name: of the first layer that computes them.
        size: number of channels.
        writers: layers that compute them.
        depthwise: depthwise layers that they pass through.
        readers: layers that read them, and how many inputs of the layer one channel is: more than one
            for a flattened map.
    """

    name: str
    size: int
    writers: tuple[str, ...]
    depthwise: tuple[str, ...]
    readers: tuple[tuple[str, int], ...]


class Channels:
    """A graph whose channels can be removed.

    Attributes:
        original: the graph; where it appends channels of zeros, it has convolutions.
        groups: channel groups that can be removed.
        whole: layers whose output channels all stay, each with the reason.
        kept: by layer that lost output channels: the original numbers of those left.
    """

    def __init__(self, gm: fx.GraphModule, height: int, width: int) -> None:
        """Find the channel groups of a float graph, which is not changed.

        Args:
            gm: canonical float graph.
            height, width: of a crop.

        Raises:
            ModelFileError: torch-pruning cannot follow the graph.
        """
        self.original = without_zero_channels(gm, height, width)
        self.twin = _twin(self.original)
        self.size = (height, width)
        self.kept: dict[str, list[int]] = {}
        names = {module: str(node.target) for node, module in module_nodes(self.twin)}
        self.modules = {name: module for module, name in names.items()}
        self.whole = _whole(self.twin)
        self._trace()
        self.groups: list[ChannelGroup] = []
        for group in self._all_groups():
            found = _describe(group, names)
            if found is None:
                continue
            reasons = [self.whole[w] for w in found.writers if w in self.whole]
            if not found.readers:
                reasons.append("no layer that reads it can lose inputs")
            if reasons:
                self.whole.update(dict.fromkeys(found.writers, reasons[0]))
            else:
                self.groups.append(found)

    def _trace(self) -> None:
        example = torch.zeros(1, 3, *self.size)
        try:
            # warns of parameters of islands, which keep all channels
            warnings.filterwarnings("ignore", "Unwrapped parameters", module="torch_pruning")
            self.graph: Any = torch_pruning.DependencyGraph().build_dependency(self.twin, example)
        except Exception as error:  # it raises many kinds
            raise ModelFileError(
                f"the network's channels cannot be followed by torch-pruning ({error})"
            ) from None

    def _all_groups(self) -> list[Any]:
        roots = [nn.Conv2d, nn.Linear]
        try:
            return list(self.graph.get_all_groups(root_module_types=roots))
        except Exception as error:  # it raises many kinds
            raise ModelFileError(
                f"the network's channels cannot be followed by torch-pruning ({error})"
            ) from None

    def remove(self, group: ChannelGroup, channels: Sequence[int]) -> None:
        """Remove channels of a group from every layer that has them.

        Args:
            group: one of :attr:`groups`, with its present size.
            channels: their numbers, counted without those removed earlier.
        """
        if not channels:
            return
        writer: Any = self.modules[group.writers[0]]
        is_linear = isinstance(writer, nn.Linear)
        prune = (
            torch_pruning.prune_linear_out_channels
            if is_linear
            else torch_pruning.prune_conv_out_channels
        )
        self.graph.get_pruning_group(writer, prune, idxs=sorted(channels)).prune()
        gone = set(channels)
        for name in (*group.writers, *group.depthwise):
            before = self.kept.get(name, list(range(group.size)))
            self.kept[name] = [c for i, c in enumerate(before) if i not in gone]

    def take(self, gm: fx.GraphModule) -> None:
        """Copy the fitted weights of ``gm``, a graph of :meth:`finish`, into the twin."""
        for node, module in module_nodes(gm):
            mine: Any = self.modules[str(node.target)]
            if isinstance(module, _LAYERS):
                assert module.bias is not None
                mine.weight.data.copy_(module.weight)
                mine.bias.data.copy_(module.bias)

    def finish(self) -> fx.GraphModule:
        """The canonical float graph without the removed channels."""
        return _canonical(self.twin)


def _twin(gm: fx.GraphModule) -> fx.GraphModule:
    twin = copy.deepcopy(gm)
    for node, module in module_nodes(twin):
        replacement: nn.Module | None = None
        with torch.no_grad():
            if isinstance(module, ops.PReLU):
                replacement = nn.PReLU(module.channels)
                replacement.weight.copy_(module.slope)
            elif isinstance(module, ops.Affine):
                replacement = nn.BatchNorm2d(module.channels, eps=0.0)
                replacement.weight.copy_(module.weight)
                replacement.bias.copy_(module.bias)
        if replacement is not None:
            twin.set_submodule(str(node.target), replacement)
    return tidy(twin).eval()


def _canonical(twin: fx.GraphModule) -> fx.GraphModule:
    gm = copy.deepcopy(twin)
    for node, module in module_nodes(gm):
        with torch.no_grad():
            if isinstance(module, nn.PReLU):
                prelu = ops.PReLU(module.weight.numel())
                prelu.slope.copy_(module.weight)
                gm.set_submodule(str(node.target), prelu)
            elif isinstance(module, nn.BatchNorm2d):
                affine = ops.Affine(module.weight.numel())
                affine.weight.copy_(module.weight)
                affine.bias.copy_(module.bias)
                gm.set_submodule(str(node.target), affine)
    return tidy(gm).eval()


def _describe(group: Any, names: dict[nn.Module, str]) -> ChannelGroup | None:
    """A torch-pruning group as names of layers; None without a layer that computes its channels."""
    writers, depthwise, readers = list[str](), list[str](), list[tuple[str, int]]()
    size = len(group[0].idxs)
    for item in group:
        module = item.dep.target.module
        if not isinstance(module, _LAYERS) or module not in names:
            continue
        name = names[module]
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            depthwise.append(name)
        elif "out_channels" in item.dep.handler.__name__:
            writers.append(name)
        else:
            readers.append((name, len(item.idxs) // size))
    if not writers:
        return None

    def once(values: list[Any]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(values))

    return ChannelGroup(writers[0], size, once(writers), once(depthwise), once(readers))


def _whole(gm: fx.GraphModule) -> dict[str, str]:
    """Layers whose channels pass through an operator that needs all of them, with the reason."""
    reasons: dict[str, str] = {}
    reasons[output_name(gm)] = "it gives the embedding"
    for node, module in module_nodes(gm):
        grouped = isinstance(module, nn.Conv2d) and 1 < module.groups
        if grouped and not module.groups == module.in_channels == module.out_channels:
            _spread(gm, node, "a grouped convolution that is not depthwise", reasons)
        elif not isinstance(
            module,
            (*_PASSES_CHANNELS, ops.Normalize, nn.Conv2d, nn.Linear, nn.PReLU, nn.BatchNorm2d),
        ):
            _spread(gm, node, f"{type(module).__name__} needs all channels", reasons)
    return reasons


def _spread(gm: fx.GraphModule, start: fx.Node, reason: str, reasons: dict[str, str]) -> None:
    """Add ``reason`` for the layers whose channels pass through ``start``, up and down the graph."""
    seen, left = set[fx.Node](), [start]
    while left:
        node = left.pop()
        if node in seen or node.op in ("placeholder", "output"):
            continue
        seen.add(node)
        module = module_of(gm, node)
        depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        if isinstance(module, _LAYERS) and not depthwise and node is not start:
            reasons.setdefault(name_of(node), reason)
            continue  # its inputs are other channels
        left += node.all_input_nodes
        left += [user for user in node.users if not _reads_anew(gm, user)]


def _reads_anew(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node computes new channels from its inputs."""
    module = module_of(gm, node)
    depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
    return isinstance(module, _LAYERS) and not depthwise
