"""What modules do that ``torch.fx`` does not take comes through ONNX; nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conftest import randomize
from efquantface.contract import FaceContract
from efquantface.errors import ModelFileError, UnsupportedOperatorError
from efquantface.importers.load import load_model
from efquantface.pipeline.compress import compress
from students import FAST

CONTRACT = FaceContract(32, 32, 24, template="unknown")


class Net(nn.Module):
    """A convolution, something in the middle that gives 12 channels, and a linear layer."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, 4, 1)
        self.bn = nn.BatchNorm2d(12)
        self.act = nn.PReLU(12)
        self.fc = nn.Linear(12 * 64, 24)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.act(self.bn(self.conv(x))))
        return self.fc(torch.flatten(x, 1))


def branching(x: Tensor) -> Tensor:
    """Python that looks at values: what ``torch.fx`` cannot trace."""
    return x if x.shape[0] > 100 or float(x.abs().sum()) < 0 else x * 2


def tokens(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, h * w, c).transpose(1, 2).reshape(n, c, h, w)


MIDDLES: dict[str, Callable[[Tensor], Tensor]] = {
    "cat": lambda x: torch.cat([x[:, :6] * 0.5, x[:, 6:]], 1),
    "cat by keyword": lambda x: torch.cat(tensors=(x[:, 4:], x[:, :4]), dim=1),
    "scalars": lambda x: (2 * x - 1) / 4 + x * 0.17,
    "silu": F.silu,
    "a module of silu": nn.SiLU(),
    "negative": lambda x: -x + 1,
    "mean over channels": lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)),
    "permute": tokens,
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "branching": branching,
    "view of three": lambda x: x.view(x.size(0), 12, -1),
    "getitem of a size": lambda x: x.view(x.shape[0], x.shape[1], x.shape[2], x.shape[3]),
}


def expect(module: nn.Module, model: object, of: Callable[[object], Tensor] = lambda y: y) -> None:
    pixels = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = of(module(((pixels - 127.5) / 127.5).float()))
    found = model.embed_pixels(pixels)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", list(MIDDLES))
def test_the_graph_computes_what_the_module_computes(name: str) -> None:
    module = randomize(Net(MIDDLES[name]))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    model = load_model(module, contract=CONTRACT)
    expect(module, model)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    if name != "getitem of a size":
        assert "exported by torch.onnx, as torch.fx does not take it" in model.notes[0]


@pytest.mark.parametrize("name", ["cat", "scalars", "silu", "mean over channels", "branching"])
def test_the_whole_way(name: str, faces_dir: Path, tmp_path: Path) -> None:
    run = compress(
        randomize(Net(MIDDLES[name])), faces_dir, tmp_path / "run", contract=CONTRACT, **FAST
    )
    assert run.parity is not None


def test_what_fx_takes_is_not_exported(network: nn.Module) -> None:
    contract = FaceContract(32, 32, 16, template="unknown")
    assert load_model(network, contract=contract).notes == []


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers(wrap: Callable[[nn.Module], nn.Module], faces_dir: Path, tmp_path: Path) -> None:
    module = randomize(Net(nn.Identity()))
    model = load_model(wrap(module), contract=CONTRACT)
    expect(module, model)
    assert (model.name, model.notes) == ("Net", [])
    if wrap is nn.DataParallel:
        run = compress(wrap(module), faces_dir, tmp_path / "run", contract=CONTRACT, **FAST)
        assert run.parity is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    module = randomize(Net(F.silu)).half().float()
    model = load_model(module.to(dtype), contract=CONTRACT)
    expect(module.float(), model)
    assert module.conv.weight.dtype == torch.float32


def test_a_norm_beside_the_embedding(faces_dir: Path, tmp_path: Path) -> None:
    class Two(Net):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = super().forward(x)
            return y, torch.norm(y, 2, 1, True)

    module = randomize(Two(nn.Identity()))
    expect(module, load_model(module, contract=CONTRACT), lambda y: y[0])
    assert compress(module, faces_dir, tmp_path / "run", contract=CONTRACT, **FAST).parity


def test_a_module_that_takes_one_face(faces_dir: Path, tmp_path: Path) -> None:
    """It gives (D,), whatever the batch is; it is compared face by face."""

    class One(Net):
        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(super().forward(x)[0], dim=0)

    module = randomize(One(nn.Identity()))
    assert compress(module, faces_dir, tmp_path / "run", contract=CONTRACT, **FAST).parity


def test_of_several_outputs_the_contract_names_one() -> None:
    class Several(Net):
        def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
            y = super().forward(x)
            return torch.cat([y, y], 1), [y * 3, y[:, :2]], y.sum(1)

    module = randomize(Several(nn.Identity()))
    expect(module, load_model(module, contract=CONTRACT), lambda y: y[1][0])


def test_training_mode_is_left_as_it_was() -> None:
    module = randomize(Net(F.silu)).train()
    module.bn.eval()
    model = load_model(module, contract=CONTRACT)
    assert (module.training, module.bn.training) == (True, False)
    expect(module.eval(), model)


def test_no_way_leads_in() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"Net.*(FFT|fft).*Neither"):
        load_model(Net(lambda x: torch.fft.fft(x).real).eval(), contract=CONTRACT)
    with pytest.raises(UnsupportedOperatorError, match="does not run on a crop of 40x40"):
        load_model(Net(F.silu).eval(), contract=FaceContract(40, 40, 24, template="unknown"))
    with pytest.raises(ModelFileError, match="gives 24 values for a face, the contract says 32"):
        load_model(Net(F.silu).eval(), contract=FaceContract(32, 32, 32, template="unknown"))
