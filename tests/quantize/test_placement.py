"""Quantizer arithmetic against references; equalization and placement."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import SmallFaceNet, randomize
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.errors import ModelFileError, RecipeError
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes, module_of, output_node
from efquantface.importers.load import load_model
from efquantface.quantize.equalize import equalize
from efquantface.quantize.fake_quant import ActivationQuantizer, InputQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear
from efquantface.quantize.placement import quantize, quantizer_before, refresh_biases
from efquantface.quantize.ranges import enable, search_range, search_weight_scales, set_ranges
from efquantface.quantize.scheme import Bits, Scheme


def quantizer(low: float, high: float, bits: int = 8, **options: object) -> ActivationQuantizer:
    made = ActivationQuantizer(bits, **options)  # type: ignore[arg-type]
    made.set_range(low, high)
    return made


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_activation_equals_torchs_own(bits: int) -> None:
    q = quantizer(-1.3, 2.9, bits)
    step, zero = q.qparams()
    x = torch.randn(4, 5, 7, 7) * 2
    expected = torch.fake_quantize_per_tensor_affine(x, step, zero, 0, 2**bits - 1)
    torch.testing.assert_close(q(x), expected)
    torch.testing.assert_close(q.dequantize(q.codes(x)), expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("rectified", [False, True])
def test_symmetric_codes_equal_torchs_own(bits: int, rectified: bool) -> None:
    q = quantizer(-1.3, 2.9, bits, symmetric=True, rectified=rectified)
    step, zero = q.qparams()
    assert zero == 0
    assert step == pytest.approx(2.9 / (2 ** (bits - 1) - 1))
    x = torch.randn(4, 5, 7, 7) * 2
    lowest = 0 if rectified else -(2 ** (bits - 1))
    expected = torch.fake_quantize_per_tensor_affine(x, step, 0, lowest, 2 ** (bits - 1) - 1)
    torch.testing.assert_close(q(x), expected)
    assert q.codes(x).dtype == torch.int8
    torch.testing.assert_close(q.dequantize(q.codes(x)), expected)


def test_weight_rounding_equals_brevitas() -> None:
    """Brevitas' integer quantizer is the oracle: narrow range, round half to even, per channel."""
    core = pytest.importorskip("brevitas.core.quant")
    rounding = pytest.importorskip("brevitas.core.function_wrapper")
    bit_width = pytest.importorskip("brevitas.core.bit_width")
    oracle = core.IntQuant(
        narrow_range=True,
        signed=True,
        input_view_impl=rounding.Identity(),
        float_to_int_impl=rounding.RoundSte(),
    )
    for bits in (2, 4, 6, 8):
        conv = QuantConv2d(3, 4, (3, 3), (1, 1), (0, 0), (1, 1), 1, bits=bits)
        weight = torch.randn(4, 3, 3, 3)
        conv.set_weight(weight, torch.zeros(4))
        conv.set_scale(search_weight_scales(weight, conv.limit))
        scale = conv.scale().detach().view(-1, 1, 1, 1)
        width = bit_width.BitWidthConst(bits)()
        expected = oracle(scale, torch.tensor(0.0), width, conv.weight)
        torch.testing.assert_close(conv.quantized_weight(), expected)


def test_gradients_equal_torchs_learnable_quantizer() -> None:
    q = quantizer(-1.0, 2.0)
    step, zero = q.qparams()
    x = (torch.randn(3, 4, 6, 6) * 1.5).requires_grad_()
    weight = torch.randn_like(x)
    (q(x) * weight).sum().backward()
    y = x.detach().clone().requires_grad_()
    scale = torch.tensor([step], requires_grad=True)
    point = torch.tensor([float(zero)], requires_grad=True)
    out = torch._fake_quantize_learnable_per_tensor_affine(y, scale, point, 0, 255, 1.0)
    (out * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    # ours is a logarithm, and a share of the range
    assert q.log_scale.grad.item() == pytest.approx(scale.grad.item() * step, rel=1e-3)
    assert q.zero_share.grad.item() == pytest.approx(point.grad.item() * 255, rel=1e-3)


def test_gradient_of_the_step_numerically() -> None:
    """With all values inside, dy/ds = code - x / s is the slope of the piecewise constant's STE."""
    q = quantizer(-4.0, 4.0)
    x = torch.tensor([0.31, -1.77, 2.2], dtype=torch.float32)
    q(x).sum().backward()
    step, _ = q.qparams()
    codes = np.rint(x.numpy() / step)
    expected = float((codes - x.numpy() / step).sum()) * step
    assert q.log_scale.grad.item() == pytest.approx(expected, abs=1e-5)


def test_rectified_quantizer_is_relu6_and_quantizer() -> None:
    q = quantizer(-3, 9, rectified=True, max_value=6.0)
    step, zero = q.qparams()
    assert zero == 0
    assert step * 255 <= 6.0 + 1e-6
    x = torch.linspace(-8, 8, 1001)
    expected = torch.fake_quantize_per_tensor_affine(x.clamp(0, 6), step, 0, 0, 255)
    torch.testing.assert_close(q(x), expected)
    q.enabled = False
    torch.testing.assert_close(q(x), x.clamp(0, 6))


def test_weight_codes_and_gradient() -> None:
    conv = QuantConv2d(3, 4, (3, 3), (1, 1), (0, 0), (1, 1), 1, bits=8)
    weight, bias = torch.randn(4, 3, 3, 3), torch.randn(4)
    conv.set_weight(weight, bias)
    torch.testing.assert_close(conv.weight, weight)
    torch.testing.assert_close(conv.bias, bias)
    conv.set_scale(weight.flatten(1).abs().amax(1) / 127)
    codes, step = conv.weight_codes()
    assert codes.dtype == torch.int8
    assert codes.abs().max() == 127
    torch.testing.assert_close(codes * step.view(-1, 1, 1, 1), conv.quantized_weight())
    conv.rescale(2.0)
    again, doubled = conv.weight_codes()
    assert torch.equal(again, codes)
    torch.testing.assert_close(doubled, 2 * step)


def test_affine_weights_are_exact() -> None:
    affine = QuantAffine(5)
    weight = torch.tensor([-2.5, -0.3, 0.0, 0.7, 1.4])
    affine.set_weight(weight, torch.zeros(5), floor=0.01)
    affine.refresh_bias(0.02)
    codes, step = affine.weight_codes()
    torch.testing.assert_close(codes.flatten() * step, weight)
    assert set(codes.flatten().abs().tolist()) <= {0, 127}


def test_nearly_dead_channel_does_not_overflow_the_bias() -> None:
    conv = QuantConv2d(1, 2, (1, 1), (1, 1), (0, 0), (1, 1), 1, bits=8)
    conv.set_weight(torch.tensor([1.0, 1e-9]).view(2, 1, 1, 1), torch.tensor([0.5, 3.0]))
    conv.set_scale(conv.weight.flatten().abs() / 127)
    assert conv.refresh_bias(0.01) == 1
    assert (conv.bias.abs() / (0.01 * conv.scale())).max() < 2**31
    x = torch.ones(1, 1, 1, 1)
    torch.testing.assert_close(conv(x).flatten(), torch.tensor([1.5, 3.0]), atol=1e-3, rtol=1e-3)


def test_range_search_is_the_best_of_a_fine_grid() -> None:
    torch.manual_seed(0)
    values = torch.cat([torch.randn(5000) + 0.5, torch.tensor([9.0])])
    low, high = float(values.min()), float(values.max())

    def error(a: float, b: float) -> float:
        with torch.no_grad():
            return float((quantizer(a, b, 4)(values) - values).square().mean())

    found = error(*search_range(values, low, high, quantizer(0, 1, 4)))
    grid = [
        error(low * a, high * b)
        for a in np.linspace(0.1, 1, 31).tolist()
        for b in np.linspace(0.1, 1, 31).tolist()
    ]
    assert found <= min(grid) * 1.05
    assert found < 0.5 * error(low, high)
    assert search_range(torch.zeros(9), 0.0, 0.0, quantizer(0, 1)) == (0.0, 1.0)


def test_weight_search_is_the_best_of_a_fine_grid() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 50)
    steps = search_weight_scales(weight, 7)

    def error(step: torch.Tensor) -> torch.Tensor:
        codes = (weight / step[:, None]).round().clamp(-7, 7)
        return (codes * step[:, None] - weight).square().sum(1)

    largest = weight.abs().amax(1) / 7
    grid = torch.stack([error(largest * f) for f in torch.linspace(0.4, 1, 400)])
    assert (error(steps) <= grid.amin(0) * 1.02).all()


def test_equalization_keeps_the_embedding(
    network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    model = load_model(network, contract=contract)
    pixels = torch.from_numpy(contract.pixels(faces.images))
    before = model.embed_pixels(pixels)
    graph = copy.deepcopy(model.graph)
    with torch.no_grad():  # one channel far larger than the others
        maker = graph.get_submodule("block_body_0")
        reader = graph.get_submodule("block_body_3")
        maker.weight[3] *= 50
        maker.bias[3] *= 50
        reader.weight[3] /= 50
    torch.testing.assert_close(graph(pixels.float()), before, atol=1e-4, rtol=1e-4)
    assert equalize(graph, [pixels]) == 3
    torch.testing.assert_close(graph(pixels.float()), before, atol=1e-4, rtol=1e-4)
    spread = graph.get_submodule("block_body_0").weight.flatten(1).norm(dim=1)
    assert spread.max() / spread.min() < 25


@pytest.mark.parametrize("between", ["nothing", "mean", "maximum"])
def test_steep_slopes_are_turned_where_signs_may_be(
    contract: FaceContract, faces: FaceSet, between: str
) -> None:
    """A maximum over pixels minds the sign of its channel, a mean does not."""
    pool = {"nothing": nn.Identity(), "mean": nn.AvgPool2d(2), "maximum": nn.MaxPool2d(2)}[between]
    activation = nn.PReLU(8)
    activation.weight.data = torch.linspace(-1.55, 2.39, 8)
    size = 15 if between == "nothing" else 7
    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2), activation, pool),
        *(nn.Conv2d(8, 8, size, groups=8), nn.PReLU(8), nn.Flatten(), nn.Linear(8, 16)),
    )
    module[4].weight.data = torch.linspace(0.1, 3, 8)
    model = load_model(module.eval(), contract=contract)
    pixels = torch.from_numpy(contract.pixels(faces.images))
    before = model.embed_pixels(pixels)
    equalize(model.graph, [pixels])
    torch.testing.assert_close(model.embed_pixels(pixels), before, atol=1e-4, rtol=1e-4)
    largest = [
        float(m.slope.max()) for _, m in module_nodes(model.graph) if isinstance(m, ops.PReLU)
    ]
    assert [slope > 1 for slope in largest] == [between == "maximum", False]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_channels_behind_a_relu_get_one_range(
    contract: FaceContract, faces: FaceSet, activation: type[nn.Module]
) -> None:
    """A ReLU6 stops channels at 6 still, and none below its own largest value of the pixels."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2), activation()),
        *(nn.Conv2d(8, 8, 15, groups=8), nn.Flatten(), nn.Linear(8, 16)),
    )
    module[0].weight.data *= torch.tensor([9, 2, 1, 1, 1, 1, 1, 1]).view(-1, 1, 1, 1)
    module[0].weight.data[7], module[0].bias.data[7] = 0.0, -1.0  # never above zero
    model = load_model(module.eval(), contract=contract)
    pixels = torch.from_numpy(contract.pixels(faces.images))
    before = model.embed_pixels(pixels)
    (clamp,) = [m for _, m in module_nodes(model.graph) if isinstance(m, ops.Clamp)]
    seen: list[Tensor] = []
    clamp.register_forward_hook(lambda _m, _x, y: seen.append(y.transpose(0, 1).flatten(1).amax(1)))
    model.embed_pixels(pixels)
    assert equalize(model.graph, [pixels]) == 2
    torch.testing.assert_close(model.embed_pixels(pixels), before, atol=1e-4, rtol=1e-4)
    (was, now) = seen[0], seen[-1]
    assert clamp.high == (6 if activation is nn.ReLU6 else None)
    assert was[:7].min() < 0.5 * was.max()
    torch.testing.assert_close(now[:7], was.max().expand(7), atol=1e-4, rtol=1e-4)
    dead = model.graph.get_submodule("n_0").bias[7]
    assert dead.item() == pytest.approx(-16 if activation is nn.ReLU6 else -1000)


def test_switched_off_quantizers_leave_the_teacher(
    network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    model = load_model(network, contract=contract)
    pixels = torch.from_numpy(contract.pixels(faces.images))
    student = quantize(model, Scheme())
    set_ranges(student.graph, [pixels])
    enable(student.graph, False)
    inner = (student.embed_pixels(pixels) - model.embed_pixels(pixels)).abs().max()
    # what is left is half a grey level in the padded border, see InputQuantizer
    assert inner < 0.02 * model.embed_pixels(pixels).abs().max()


def test_input_normalization_folds_exactly_without_padding() -> None:
    contract = FaceContract(
        32, 32, 16, mean=(122.782, 117.001, 104.298), std=(250.0, 256.0, 260.0), template="unknown"
    )
    torch.manual_seed(0)
    module = SmallFaceNet()
    module.stem[0] = nn.Conv2d(3, 16, 4, stride=2, bias=False)
    module.tail = nn.Conv2d(16, 16, 7, groups=16, bias=False)
    model = load_model(randomize(module), contract=contract)
    student = quantize(model, Scheme())
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    enable(student.graph, False)
    torch.testing.assert_close(
        student.embed_pixels(pixels), model.embed_pixels(pixels), atol=1e-4, rtol=1e-4
    )
    first = next(m for _, m in module_nodes(student.graph) if isinstance(m, InputQuantizer))
    assert first.pixels


def test_unequal_normalization_before_padding_is_quantized_itself(network: nn.Module) -> None:
    contract = FaceContract(32, 32, 16, template="unknown").with_preprocess("imagenet")
    student = quantize(load_model(network, contract=contract), Scheme())
    first = next(m for _, m in module_nodes(student.graph) if isinstance(m, InputQuantizer))
    assert not first.pixels
    black = torch.zeros(1, 3, 2, 2)
    step, _ = first.qparams()
    assert (first(black) - first.normalized(black)).abs().max() <= step / 2 + 1e-6


def test_every_integer_layer_knows_its_input(network: nn.Module, contract: FaceContract) -> None:
    student = quantize(load_model(network, contract=contract), Scheme())
    refresh_biases(student.graph)
    layers = [m for _, m in module_nodes(student.graph) if hasattr(m, "input_scale")]
    assert layers
    assert all(m.input_scale > 0 for m in layers)
    assert module_of(student.graph, output_node(student.graph)) is layers[-1]
    with pytest.raises(ModelFileError, match="quantized already"):
        quantize(student, Scheme())


def test_bits_by_name_and_wide_ends(network: nn.Module, contract: FaceContract) -> None:
    model = load_model(network, contract=contract)
    scheme = Scheme(Bits(4, 4), (("*body_0", Bits(6, 6)),), wide_ends=True)
    student = quantize(model, scheme)
    layers = [
        (n, m) for n, m in module_nodes(student.graph) if isinstance(m, QuantConv2d | QuantLinear)
    ]
    assert [m.bits for _, m in layers] == [8, 6, 4, 4, 4, 8]
    read = [quantizer_before(student.graph, n) for n, _ in layers]
    assert [getattr(q, "bits", 8) for q in read] == [8, 6, 4, 4, 4, 8]
    with pytest.raises(RecipeError, match="names none"):
        quantize(model, Scheme(layers=(("nowhere*", Bits(6, 6)),)))


def test_the_first_and_depthwise_convolutions_keep_eight_bits_of_weights(
    contract: FaceContract,
) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Flatten(),
        nn.LazyLinear(16),
    )
    network(torch.zeros(1, 3, contract.height, contract.width))
    model = load_model(network, contract=contract)

    def bits(scheme: Scheme) -> list[int]:
        found = (m for _, m in module_nodes(quantize(model, scheme).graph))
        return [m.bits for m in found if isinstance(m, QuantConv2d | QuantLinear)]

    assert bits(Scheme(Bits(4, 8), wide_depthwise=True)) == [8, 8, 4, 4, 4]
    assert bits(Scheme(Bits(4, 8))) == [4, 4, 4, 4, 4]
    (name, *_) = (n.name for n, m in module_nodes(model.graph) if isinstance(m, ops.Conv2d))
    named = Scheme(Bits(4, 8), ((name, Bits(6, 8)),), wide_depthwise=True)
    assert bits(named) == [6, 8, 4, 4, 4]


def test_additions_keep_eight_bits(network: nn.Module, contract: FaceContract) -> None:
    """Low bits are for what convolutions read; an addition beside them reads the 8-bit codes."""
    student = quantize(load_model(network, contract=contract), Scheme.parse("w4a4"))
    for node, module in module_nodes(student.graph):
        if isinstance(module, ops.Add | QuantAffine):
            for source in node.args:
                reader = student.graph.graph.call_function(torch.add, (source,))
                assert getattr(quantizer_before(student.graph, reader), "bits", 8) == 8
                student.graph.graph.erase_node(reader)
