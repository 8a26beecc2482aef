"""The training kernels against the same formulas written in torch's operators."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from conftest import SmallFaceNet, randomize
from efquantface.contract import FaceContract
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize import kernels, native
from efquantface.quantize.equalize import equalize
from efquantface.quantize.float_student import TrainedPReLU, plain, trainable
from efquantface.quantize.fused import FusedAffine, FusedPReLU, fused
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme


@pytest.fixture(params=["w8a8", "w4a4", "w8a8, slopes up to one"])
def student(request: pytest.FixtureRequest) -> FaceModel:
    """Ranges a little too small, so that each quantizer clips some values."""
    torch.manual_seed(0)
    net = randomize(SmallFaceNet())
    model = load_model(net, contract=FaceContract(32, 32, 16))
    bits, _, gentle = request.param.partition(",")
    images = torch.randint(0, 256, (4, 3, 32, 32))
    if gentle:
        equalize(model.graph, [images])
    made = quantize(model, Scheme.parse(bits))
    set_ranges(made.graph, [images])
    for name, parameter in made.graph.named_parameters():
        if name.endswith("_q.log_scale"):
            parameter.data -= 0.2
    return made


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(4)).float()


def gradients(
    graph: nn.Module, pixels: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    out = graph(pixels)
    graph.zero_grad()
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return out.detach(), {
        k: p.grad.clone() for k, p in graph.named_parameters() if p.grad is not None
    }


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_fused_graph_equals_operators(
    student: FaceModel, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = fused(student.graph)
    kinds = [type(m) for _, m in module_nodes(view)]
    whole = [m for _, m in module_nodes(view) if isinstance(m, FusedPReLU)]
    assert len(whole) > 1
    assert all((m.limit > 0) == m.product.rectified for m in whole)
    assert ops.Clamp not in kinds
    assert {id(p) for p in view.parameters()} == {id(p) for p in student.graph.parameters()}
    out, _ = gradients(view, pixels)
    found = {k: p.grad.clone() for k, p in student.graph.named_parameters() if p.grad is not None}
    monkeypatch.setattr(native, "applies", lambda _: False)
    expected, wanted = gradients(student.graph, pixels)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        scale = float(grad.abs().max())
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-4 * scale, msg=name)
    unfused, _ = gradients(view, pixels)
    torch.testing.assert_close(unfused, expected)


def away_from_edges(part: FusedPReLU, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Values over all codes of a PReLU and beyond, none where two formulas may round apart."""
    draw = torch.Generator().manual_seed(seed)
    quantizers = (part.before, part.product, part.total)
    with torch.no_grad():
        first = part.before.now()
        codes = torch.rand(shape, generator=draw, dtype=torch.float64) * 1.2 - 0.1
        lost = torch.ones(shape, dtype=torch.bool)
        found = torch.zeros(shape, dtype=torch.float64)
        while lost.any():
            x = (first.qmin + codes * (first.qmax - first.qmin) - first.zero_point) * first.scale
            found[lost] = x.double()[lost]
            a = part.before(found.float())
            product = part.affine(a.clamp(max=part.limit))
            values = (found, product, a + part.product(product))
            lost = a.abs() < float(first.scale) / 2  # min(a, 0) has two slopes there
            for quantizer, value in zip(quantizers, values, strict=True):
                now = quantizer.now()
                ratio = value.double() / float(now.scale) + float(now.zero_point)
                lost |= (ratio - ratio.floor() - 0.5).abs() < 1e-3
            codes = torch.rand(shape, generator=draw, dtype=torch.float64) * 1.2 - 0.1
    return found.float()


@pytest.mark.parametrize("seed", range(3))
def test_each_fused_prelu_equals_operators(
    student: FaceModel, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [m for _, m in module_nodes(fused(student.graph)) if isinstance(m, FusedPReLU)]
    assert parts
    for part in parts:
        weight = part.affine.quantized_weight()
        x = away_from_edges(part, (6, weight.numel(), 9, 7), seed)
        x = x.contiguous(memory_format=torch.channels_last)
        given = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        results = []
        for in_kernels in (True, False):
            monkeypatch.setattr(native, "applies", lambda _, found=in_kernels: found)
            read = x.clone().requires_grad_()
            named = {k: p for k, p in part.named_parameters() if p.requires_grad}
            out = part(read)
            grads = torch.autograd.grad((out * given).sum(), (read, *named.values()))
            results.append(
                {"out": out.detach(), "x": grads[0], **dict(zip(named, grads[1:], strict=True))}
            )
        ours, theirs = results
        for name, wanted in theirs.items():
            bound = 1e-5 * max(float(wanted.abs().max()), 1e-3 * float(given.abs().sum()))
            torch.testing.assert_close(ours[name], wanted, rtol=1e-4, atol=bound, msg=name)


def test_same_result_on_any_number_of_threads(
    student: FaceModel, pixels: torch.Tensor, threads: None
) -> None:
    """Sums are taken in fixed runs; the convolutions' own sums are torch's business."""
    x = torch.randn(5, 24, 30, 30).contiguous(memory_format=torch.channels_last)
    codes = native.Codes(torch.tensor(0.02, requires_grad=True), torch.tensor(3.0), 0, 255)
    weight, bias = torch.randn(24, requires_grad=True), torch.randn(24, requires_grad=True)
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        y = native.prelu(x, codes, weight, bias, codes, codes)
        grads = torch.autograd.grad((y * y).sum(), (codes.scale, weight, bias))
        found.append([y.detach(), *grads])
        assert torch.get_num_threads() == count
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("shape", [(7, 5), (300, 3), (2, 6, 4, 4), (3, 1, 9, 9)])
def test_float_prelu(shape: tuple[int, ...]) -> None:
    x, prelu = torch.randn(shape), TrainedPReLU(shape[1])
    x[0, 0] = 0.0
    prelu.slope.data = torch.linspace(-0.5, 1.5, shape[1])
    weights = torch.randn(shape)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = nn.functional.prelu(theirs, prelu.slope)
    y = prelu(ours)
    torch.testing.assert_close(y, expected)
    found = torch.autograd.grad((y * weights).sum(), (ours, prelu.slope))
    wanted = torch.autograd.grad((expected * weights).sum(), (theirs, prelu.slope))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_float_student_and_back() -> None:
    model = load_model(randomize(SmallFaceNet()), contract=FaceContract(32, 32, 16))
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    student = trainable(model)
    assert any(type(m) is TrainedPReLU for _, m in module_nodes(student.graph))
    back = plain(student)
    assert not any(type(m) is TrainedPReLU for _, m in module_nodes(back.graph))
    for made in (student, back):
        torch.testing.assert_close(made.embed_pixels(pixels), model.embed_pixels(pixels))


@pytest.mark.parametrize("shape", [(7, 5), (300, 3), (2, 6, 4, 4), (3, 1, 9, 9), (2, 5, 8)])
def test_quantizer_of_any_shape(shape: tuple[int, ...]) -> None:
    x = (torch.randn(shape) * 2).requires_grad_()
    step, zero = torch.tensor(0.05, requires_grad=True), torch.tensor(20.0, requires_grad=True)
    y = native.quantize(x, native.Codes(step, zero, 0, 63))
    scale, point = step.detach().clone().requires_grad_(), zero.detach().clone().requires_grad_()
    reference = x.detach().clone().requires_grad_()
    expected = torch._fake_quantize_learnable_per_tensor_affine(
        reference, scale.view(1), point.view(1), 0, 63, 1.0
    )
    torch.testing.assert_close(y, expected)
    weights = torch.randn(shape)
    y.backward(weights)
    expected.backward(weights)
    torch.testing.assert_close(x.grad, reference.grad)
    torch.testing.assert_close(step.grad, scale.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(zero.grad, point.grad, rtol=1e-4, atol=1e-3)


def test_affine_is_fused_and_gives_its_gradients() -> None:
    x = torch.randn(4, 6, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.randn(6, requires_grad=True), torch.randn(6, requires_grad=True)
    codes = native.Codes(torch.tensor(0.02), torch.tensor(100.0), 0, 255)
    y = native.scaled(x, weight, bias, codes)
    given = torch.randn_like(y)
    found = torch.autograd.grad(y, (x, weight, bias), given)
    value = x * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    expected = torch.fake_quantize_per_tensor_affine(value, 0.02, 100, 0, 255)
    torch.testing.assert_close(y, expected)
    for one, other in zip(
        found, torch.autograd.grad(expected, (x, weight, bias), given), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_what_others_read_is_left_whole(student: FaceModel, pixels: torch.Tensor) -> None:
    """A PReLU whose input is read by somebody else, too, stays in parts."""
    before = sum(isinstance(m, FusedPReLU) for _, m in module_nodes(fused(student.graph)))
    graph = student.graph
    add = next(n for n, _ in module_nodes(graph) if str(n.target).endswith("_sum"))
    end = next(n for n in graph.graph.nodes if n.op == "output")
    end.args = ((end.args[0], add.args[0]),)
    graph.recompile()
    view = fused(graph)
    assert sum(isinstance(m, FusedPReLU) for _, m in module_nodes(view)) == before - 1
    assert any(isinstance(m, FusedAffine) for _, m in module_nodes(view))
    for one, other in zip(view(pixels), graph(pixels), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_nan_stays_nan() -> None:
    x = np.full((3, 4), np.nan, np.float32)
    out = np.zeros_like(x)
    q = np.array([[0.1, 10, 3, 0, 255]] * 3, np.float32)
    kernels.quantize(x, out, q[0])
    assert np.isnan(out).all()
    for limit in (0, np.inf):
        out[:] = 0
        one, zero = np.ones(4, np.float32), np.zeros(4, np.float32)
        kernels.prelu(x, out, one, zero, q, np.float32(limit))
        assert np.isnan(out).all()
