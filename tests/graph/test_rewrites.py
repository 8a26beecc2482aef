"""Tracing, rewriting and storing graphs never changes what they compute."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import fx, nn

from conftest import SIZE, SmallFaceNet, randomize
from efquantface.backbones.iresnet import IResNet
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.errors import ContractError, ModelFileError, UnsupportedOperatorError
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.operators import executed
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes
from efquantface.graph.model import FaceModel
from efquantface.graph.rewrites import canonicalize, prepend_normalize, split_prelu
from efquantface.importers.load import load_model
from efquantface.importers.torch_fx import import_module
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from random_graphs import crops, graphs


def embeddings(module: nn.Module, contract: FaceContract, faces: FaceSet) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(contract.normalize(faces.images))).numpy()


def through(model: FaceModel, faces: FaceSet) -> np.ndarray:
    return model.embed_pixels(torch.from_numpy(model.contract.pixels(faces.images))).numpy()


def test_traced_and_folded_equals_module(
    network: nn.Module, contract: FaceContract, faces: FaceSet
) -> None:
    model = load_model(network, contract=contract)
    np.testing.assert_allclose(
        through(model, faces), embeddings(network, contract, faces), atol=2e-5
    )
    assert not any(isinstance(m, ops.Affine) for _, m in module_nodes(model.graph))


class PreActivation(nn.Module):
    """BatchNorm in front of a zero-padded convolution, as in IResNet's bn1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4)
        self.prelu = nn.PReLU()
        self.bn1 = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, groups=2)
        self.bn3 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 36, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.stem(x))
        x = torch.relu(x + self.conv(self.bn1(x)))
        x = self.conv2(self.bn2(x))
        return self.fc(self.bn3(x.relu()).view(x.size(0), -1))


def test_batchnorm_before_padding_stays(contract: FaceContract, faces: FaceSet) -> None:
    torch.manual_seed(1)
    module = randomize(PreActivation())
    model = load_model(module, contract=contract)
    kept = [
        name
        for name, m in ((n.target, m) for n, m in module_nodes(model.graph))
        if isinstance(m, ops.Affine)
    ]
    assert kept == ["bn1"]  # bn2 and bn3 fold forward, through grouped conv and flatten
    np.testing.assert_allclose(
        through(model, faces), embeddings(module, contract, faces), atol=2e-5
    )


@pytest.mark.parametrize("steep", [True, False])
def test_split_prelu_is_exact(
    network: nn.Module, contract: FaceContract, faces: FaceSet, steep: bool
) -> None:
    for child in network.modules():
        if isinstance(child, nn.PReLU):
            child.weight.data = torch.linspace(-1.55, 2.39 if steep else 1, len(child.weight))
    model = load_model(network, contract=contract)
    before = through(model, faces)
    model.graph = split_prelu(copy.deepcopy(model.graph))
    assert not any(isinstance(m, ops.PReLU) for _, m in module_nodes(model.graph))
    clamps = [m for _, m in module_nodes(model.graph) if isinstance(m, ops.Clamp)]
    assert any(m.low is None for m in clamps) == steep
    np.testing.assert_allclose(through(model, faces), before, atol=1e-5)


def test_linear_tail(contract: FaceContract) -> None:
    class Tail(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, SIZE)
            self.last = nn.Conv2d(8, 16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.conv(x)).reshape(x.shape[0], -1)

    module = Tail().eval()
    graph = canonicalize(
        prepend_normalize(import_module(module, contract), (0,) * 3, (1,) * 3), SIZE, SIZE
    )
    x = torch.rand(3, 3, SIZE, SIZE)
    torch.testing.assert_close(graph(x), module(x))
    assert isinstance(module_nodes(graph)[-1][1], nn.Linear)


def test_unsupported_operations_are_all_named(contract: FaceContract) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gelu = nn.GELU(approximate="tanh")
            self.fc = nn.Linear(3 * SIZE * SIZE, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.flatten(self.gelu(x), 1)) + torch.sin(x).sum()

    with pytest.raises(UnsupportedOperatorError, match=r"GELU.*sin"):
        import_module(Odd(), contract)


def test_module_problems(network: nn.Module, contract: FaceContract) -> None:
    with pytest.raises(ContractError, match="FaceContract"):
        load_model(network)
    with pytest.raises(ModelFileError, match=r"\(1, 16\) for one crop"):
        load_model(network, contract=FaceContract(SIZE, SIZE, 32))
    broken = SmallFaceNet()
    broken.fc.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelFileError, match=r"fc\.weight.*not finite"):
        load_model(broken, contract=contract)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="dlib-resnet"):
        load_model("no-such-name")


def test_iresnet_in_arcface_names_runs_in_integers(tmp_path: Path) -> None:
    """Its BatchNorms before zero-padded convolutions are scales per channel, also in integers."""
    torch.manual_seed(0)
    module = randomize(IResNet(18, 64))
    keys = set(module.state_dict())
    wanted = ("conv1", "bn1", "prelu", "layer1.0.bn1", "layer4.1.conv2", "layer2.0.downsample.1")
    assert {f"{name}.weight" for name in (*wanted, "bn2", "fc", "features")} <= keys
    contract = FaceContract(112, 112, 64)
    model = load_model(module, contract=contract)
    faces = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = module(torch.from_numpy(contract.normalize(faces)))
    pixels = torch.from_numpy(contract.pixels(faces))
    torch.testing.assert_close(model.embed_pixels(pixels), expected, rtol=1e-3, atol=1e-3)
    student = quantize(model, Scheme())
    set_ranges(student.graph, [pixels])
    write_onnx(student, tmp_path / "r18.onnx")
    found = executed(tmp_path / "r18.onnx")
    assert found.integer_convolutions == found.convolutions > 21


@given(graphs())
def test_rewrites_keep_the_function(gm: fx.GraphModule) -> None:
    x = crops()
    expected = gm(x).detach()
    for rewrite in (lambda g: canonicalize(g, *x.shape[2:]), split_prelu):
        found = rewrite(copy.deepcopy(gm))(x)
        largest = max(float(expected.abs().max()), 1.0)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * largest)
