"""From an ``nn.Module`` to a canonical graph, by tracing it with ``torch.fx``."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from efquantface.contract import FaceContract
from efquantface.errors import ModelFileError, UnsupportedOperatorError
from efquantface.graph import ops
from efquantface.graph.graph import INPUT, GraphBuilder
from efquantface.importers.onnx.context import Context, NotCanonical

_CANONICAL = frozenset(ops.OPERATORS.values())


class _Tracer(fx.Tracer):
    """Traces through containers and users' classes to PyTorch's own layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_canonical(m) or (
            m.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential)
        )


def _is_canonical(module: nn.Module) -> bool:
    """Whether a module is one of our operators, or gives its canonical form itself."""
    return type(module) in _CANONICAL or hasattr(module, "canonical")


def import_module(module: nn.Module, contract: FaceContract) -> fx.GraphModule:
    """Trace ``module`` (evaluation mode, its own normalized float input) to a canonical graph.

    The module itself is not changed.

    Raises:
        ModelFileError: the module gives another shape than the contract says, or holds values that are
            not finite.
        UnsupportedOperatorError: the module cannot be traced, or operations have no canonical form; all
            are named.
    """
    what = type(module).__name__
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelFileError(f"{what}: weight {name!r} holds values that are not finite")
    try:
        with evaluating(module):
            traced = _Tracer().trace(module)
    except Exception as error:  # tracing runs the user's forward
        raise UnsupportedOperatorError(f"{what} cannot be traced ({error})") from None
    example = torch.zeros(1, 3, contract.height, contract.width)
    context = Context(GraphBuilder(), {INPUT: example})
    values: dict[fx.Node, str] = {}
    sizes: set[fx.Node] = set()  # nodes that only compute arguments of a reshape
    problems: list[str] = []
    output = ""
    for node in traced.nodes:
        try:
            if node.op == "placeholder":
                values[node] = INPUT
            elif node.op == "output":
                output = _output(node, values, what)
            elif _is_size(node, values, sizes):
                sizes.add(node)
            elif any(a not in values and a not in sizes for a in node.all_input_nodes):
                continue  # it reads a node that is reported already
            elif node.op == "call_module":
                child = module.get_submodule(str(node.target))
                values[node] = _module(context, node, child, values)
            elif node.op in ("call_function", "call_method"):
                values[node] = _call(context, node, values)
            else:
                raise NotCanonical(f"reads {node.target} directly")
        except (NotCanonical, LookupError, TypeError, ValueError) as error:
            known = isinstance(error, NotCanonical)
            reason = f" ({error})" if known and str(error) else "" if known else " (so used)"
            problems.append(f"{_called(node)} {node.name!r}{reason}")
    if problems:
        raise UnsupportedOperatorError(
            f"{what}: {len(problems)} operations are not supported: " + "; ".join(problems)
        )
    shape = tuple(context.examples[output].shape)
    if shape != (1, contract.embedding_size):
        raise ModelFileError(
            f"{what}: gives {shape} for one crop, the contract says (1, {contract.embedding_size})"
        )
    return context.builder.finish(output)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A context in which the module is in evaluation mode; each part's own mode comes back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _called(node: fx.Node) -> str:
    """The name of an operation, for messages."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")


def _is_size(node: fx.Node, values: dict[fx.Node, str], sizes: set[fx.Node]) -> bool:
    """Whether a node is a shape, an entry of a shape, or computed from such entries only."""
    inputs = node.all_input_nodes
    if node.op not in ("call_function", "call_method") or not inputs:
        return False
    if all(source in sizes for source in inputs):
        return True
    of_value = len(inputs) == 1 and inputs[0] in values
    shape = node.target is getattr and node.args[1] in ("shape", "ndim")
    return of_value and (shape or node.target in ("size", "dim"))


def _output(node: fx.Node, values: dict[fx.Node, str], what: str) -> str:
    result = node.args[0]
    if not isinstance(result, fx.Node) or result not in values:
        if isinstance(result, fx.Node):
            return INPUT  # an earlier problem is reported instead
        raise UnsupportedOperatorError(
            f"{what}: returns {type(result).__name__}, one embedding is expected"
        )
    return values[result]


def _module(context: Context, node: fx.Node, child: nn.Module, values: dict[fx.Node, str]) -> str:
    plain = len(node.all_input_nodes) == 1 and len(node.args) == 1 and not node.kwargs
    if not plain and not _is_canonical(child):
        raise NotCanonical(f"{type(child).__name__} of several inputs")
    source = values[node.all_input_nodes[0]]
    convert = next((c for kind, c in _MODULES.items() if isinstance(child, kind)), None)
    if _is_canonical(child):
        convert = _copy
    if convert is None:
        raise NotCanonical(type(child).__name__)
    converted = convert(child, tuple(context.examples[source].shape))
    if converted is None:
        return source
    return context.add(str(node.target), converted, *(values[a] for a in node.all_input_nodes))


def _conv(m: Any, shape: tuple[int, ...]) -> nn.Module:
    if isinstance(m.padding, str) or m.padding_mode != "zeros":
        raise NotCanonical(f"padding {m.padding!r}, {m.padding_mode}")
    return ops.conv_from(
        m.weight.detach(),
        None if m.bias is None else m.bias.detach(),
        stride=m.stride,
        padding=m.padding,
        dilation=m.dilation,
        groups=m.groups,
    )


def _batch_norm(m: Any, shape: tuple[int, ...]) -> nn.Module:
    affine = ops.Affine(m.num_features)
    if m.running_mean is None:
        raise NotCanonical("BatchNorm without running statistics")
    with torch.no_grad():
        factor = 1 / torch.sqrt(m.running_var + m.eps)
        if m.weight is not None:
            factor = factor * m.weight
        affine.weight.copy_(factor)
        affine.bias.copy_(-m.running_mean * factor + (0 if m.bias is None else m.bias))
    return affine


def _prelu(m: Any, shape: tuple[int, ...]) -> nn.Module:
    module = ops.PReLU(shape[1])
    slope = m.weight if isinstance(m, nn.PReLU) else torch.tensor(m.negative_slope)
    with torch.no_grad():
        module.slope.copy_(slope.detach().expand(shape[1]))
    return module


def _adaptive(m: Any, shape: tuple[int, ...]) -> nn.Module:
    size = m.output_size if isinstance(m.output_size, tuple) else (m.output_size,) * 2
    if size != (1, 1):
        raise NotCanonical(f"adaptive pooling to {size}")
    return ops.GlobalAvgPool()


def _max_pool(m: Any, shape: tuple[int, ...]) -> nn.Module:
    if m.dilation not in (1, (1, 1)) or m.return_indices:
        raise NotCanonical("dilated pooling, or with indices")
    return ops.MaxPool2d(m.kernel_size, m.stride, m.padding, ceil_mode=m.ceil_mode)


def _avg_pool(m: Any, shape: tuple[int, ...]) -> nn.Module:
    if m.divisor_override is not None:
        raise NotCanonical("average pooling with a divisor of its own")
    return ops.AvgPool2d(m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad)


def _copy(m: Any, shape: tuple[int, ...]) -> nn.Module:
    module: nn.Module = m.canonical(shape) if hasattr(m, "canonical") else copy.deepcopy(m)
    return module


def _gelu(m: Any, shape: tuple[int, ...]) -> nn.Module:
    if m.approximate != "none":
        raise NotCanonical(f"GELU approximated by {m.approximate}")
    return ops.Gelu()


def _nothing(m: Any, shape: tuple[int, ...]) -> None:
    return None


def _linear(m: Any, shape: tuple[int, ...]) -> nn.Module:
    return ops.linear_from(m.weight.detach(), None if m.bias is None else m.bias.detach())


_MODULES: dict[type[nn.Module], Callable[[Any, tuple[int, ...]], nn.Module | None]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.PReLU: _prelu,
    nn.LeakyReLU: _prelu,
    nn.ReLU6: lambda m, s: ops.Clamp(0.0, 6.0),
    nn.Hardtanh: lambda m, s: ops.Clamp(float(m.min_val), float(m.max_val)),
    nn.ReLU: lambda m, s: ops.Clamp(0.0, None),
    nn.Sigmoid: lambda m, s: ops.Sigmoid(),
    nn.GELU: _gelu,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive,
    nn.Flatten: lambda m, s: None if len(s) == 2 else ops.Flatten(),
    nn.Dropout: _nothing,
    nn.Dropout2d: _nothing,
    nn.Identity: _nothing,
}


def _call(context: Context, node: fx.Node, values: dict[fx.Node, str]) -> str:
    """Functions and tensor methods."""
    target: Any = node.target
    source = values[node.all_input_nodes[0]]
    shape = tuple(context.examples[source].shape)
    name = node.name
    if target in (operator.add, operator.iadd, torch.add, "add", "add_"):
        operands = [a for a in node.args if isinstance(a, fx.Node)]
        if len(operands) != 2 or node.kwargs:
            raise NotCanonical("an addition that is not of two tensors")
        first, second = (values[a] for a in operands)
        if context.examples[first].shape != context.examples[second].shape:
            raise NotCanonical("an addition of different shapes")
        return context.add(name, ops.Add(), first, second)
    if target in (operator.mul, torch.mul, "mul"):
        operands = [a for a in node.args if isinstance(a, fx.Node)]
        if len(operands) != 2 or node.kwargs:
            raise NotCanonical("a product that is not of two tensors")
        return context.add(name, ops.Multiply(), *(values[a] for a in operands))
    if target in (F.relu, torch.relu, torch.relu_, "relu", "relu_"):
        return context.add(name, ops.Clamp(0.0, None), source)
    if target in (F.sigmoid, torch.sigmoid, "sigmoid"):
        return context.add(name, ops.Sigmoid(), source)
    if target is F.relu6:
        return context.add(name, ops.Clamp(0.0, 6.0), source)
    if target in (torch.flatten, "flatten", "view", "reshape", torch.reshape, "squeeze"):
        return _reshape(context, node, source, shape)
    if target in (F.adaptive_avg_pool2d, torch.mean, "mean"):
        return _mean(context, node, source, shape)
    if target in (F.dropout, "contiguous", "float"):
        return source
    raise NotCanonical("")


def _reshape(context: Context, node: fx.Node, source: str, shape: tuple[int, ...]) -> str:
    """A reshape that ends as (N, features); its shape is compared with the call's own."""
    features = Tensor.numel(context.examples[source])
    wanted = node.args[1:]
    if len(wanted) == 1 and isinstance(wanted[0], tuple | list):
        wanted = tuple(wanted[0])
    last = wanted[-1] if wanted else None
    start = node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim")
    flat = node.target in (torch.flatten, "flatten") and start == 1
    squeezed = node.target == "squeeze" and shape[2:] in ((1, 1), ())
    as_rows = node.target in ("view", "reshape", torch.reshape) and len(wanted) == 2
    reshaped = as_rows and last in (-1, features)
    if not (flat or squeezed or reshaped):
        raise NotCanonical(f"a reshape of {shape} by {node.args[1:]}")
    return source if len(shape) == 2 else context.add(node.name, ops.Flatten(), source)


def _mean(context: Context, node: fx.Node, source: str, shape: tuple[int, ...]) -> str:
    if node.target is F.adaptive_avg_pool2d:
        if node.args[1] not in (1, (1, 1), [1, 1]):
            raise NotCanonical(f"adaptive pooling to {node.args[1]}")
        return context.add(node.name, ops.GlobalAvgPool(), source)
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if not isinstance(dims, tuple | list) or sorted(int(str(d)) % 4 for d in dims) != [2, 3]:
        raise NotCanonical(f"a mean over {dims}")
    pooled = context.add(node.name, ops.GlobalAvgPool(), source)
    return pooled if node.kwargs.get("keepdim") else context.add(node.name, ops.Flatten(), pooled)
