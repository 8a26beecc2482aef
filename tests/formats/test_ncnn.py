"""ncnn's files hold the student's integers; what has no layer is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import SIZE, SmallFaceNet, make_faces, randomize
from efquantface.contract import FaceContract
from efquantface.errors import ExportError, MissingPackageError, ModelFileError
from efquantface.formats import ncnn as room
from efquantface.formats.delivery import deliver
from efquantface.formats.ncnn_form import for_ncnn
from efquantface.formats.ncnn_walk import shaken
from efquantface.formats.ncnn_writer import to_ncnn
from efquantface.formats.table import FORMATS
from efquantface.graph import ops
from efquantface.graph.graph import module_nodes
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.fake_quant import ActivationQuantizer
from efquantface.quantize.layers import QuantAffine, QuantConv2d, QuantLinear
from efquantface.rows import mean_cosine
from ncnn_files import NcnnFile
from students import Pattern, student_of

pytest.importorskip("ncnn")
NCNN = FORMATS["ncnn"]


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(self.pool(x)))))


def slopes() -> nn.PReLU:
    prelu = nn.PReLU(8)
    prelu.weight.data = torch.linspace(-1.5, 2.4, 8)
    return prelu


class Ends(nn.Module):
    """A Flatten of channels last, and an embedding of length one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 5, stride=8), nn.Linear(128, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x)).permute(0, 2, 3, 1).reshape(-1, 128)
        return nn.functional.normalize(self.fc(x))


NETWORKS = {
    "prelu": lambda: Pattern(nn.Sequential(nn.Conv2d(8, 8, 1), slopes()), residual=True),
    "depthwise": lambda: Pattern(
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6())
    ),
    "one side": lambda: Pattern(nn.Conv2d(8, 8, (1, 3), stride=(2, 1), padding=(0, 1))),
    "average": lambda: Pattern(nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    "pre-batchnorm": lambda: Pattern(
        nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1))
    ),
    "squeeze": lambda: Pattern(SqueezeExcitation()),
    "hard swish": lambda: Pattern(nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardswish())),
    "zero pad": lambda: Pattern(ops.ZeroPad(4, bottom=1, right=1), channels=12),
    "ends": Ends,
    "small": SmallFaceNet,
}


@pytest.mark.parametrize("bits", ["w8a8", "w4a4"])
@pytest.mark.parametrize("name", NETWORKS)
def test_ncnn_computes_the_student(
    name: str, bits: str, tmp_path: Path, contract: FaceContract
) -> None:
    torch.manual_seed(0)
    _, student = student_of(randomize(NETWORKS[name]()), contract, bits, symmetric=True)
    target = tmp_path / "student.ncnn.param"
    lines = deliver(student, NCNN, target)
    assert "layers compute what the student's do" in lines[-1]
    assert any("in 8 bits" in line for line in lines) == (bits == "w4a4")
    faces = make_faces(seed=3).images[:8]
    found = room.open(target, 1)(contract.normalize(faces))
    own = student.embed_pixels(torch.from_numpy(contract.pixels(faces))).numpy()
    cosine = (found * own).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(own, axis=1)
    assert cosine.mean() > (0.998 if bits == "w8a8" else 0.97)
    stored = FaceContract.read(target.with_suffix(".contract.json"))
    assert stored == contract


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.0,) * 3, (1.0,) * 3), ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))],
)
def test_any_normalization(tmp_path: Path, network: nn.Module, mean: object, std: object) -> None:
    contract = FaceContract(SIZE, SIZE, 16, template="unknown", mean=mean, std=std)  # type: ignore[arg-type]
    _, student = student_of(network, contract, symmetric=True)
    assert "layers compute" in deliver(student, NCNN, tmp_path / "a.param")[-1]


@pytest.fixture
def student(network: nn.Module, contract: FaceContract) -> FaceModel:
    return student_of(network, contract, symmetric=True)[1]


def test_the_files_hold_the_students_integers(tmp_path: Path, student: FaceModel) -> None:
    deliver(student, NCNN, tmp_path / "s.param")
    file = NcnnFile(tmp_path / "s.param")
    for node, layer in module_nodes(for_ncnn(student).graph):
        if isinstance(layer, QuantConv2d | QuantLinear | QuantAffine):
            name = str(node.target)
            codes, scales = (t.detach().numpy() for t in layer.weight_codes())
            assert (file.value(name, "weight") == codes.reshape(-1)).all()
            np.testing.assert_allclose(1 / file.value(name, "scales"), scales, 1e-6)
            unit = scales / file.value(name, "bottom")
            off = np.abs(file.value(name, "bias") - layer.bias.detach().numpy())
            assert (off <= 0.501 * unit).all()


def test_quantizers_stand_in_front_of_integer_layers_alone(student: FaceModel) -> None:
    form = for_ncnn(student)
    modules = dict(form.graph.named_modules())
    assert sum(isinstance(m, ops.PReLU) for m in modules.values()) == 3
    for node, module in module_nodes(form.graph):
        if isinstance(module, ActivationQuantizer):
            (reader,) = node.users
            assert isinstance(modules[str(reader.target)], QuantConv2d | QuantLinear | QuantAffine)
            assert module.qmin >= -127


def test_requantization_changes_no_code(
    tmp_path: Path, contract: FaceContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolutions that hand on codes give the very embeddings of those that hand on floats."""
    body = nn.Sequential(
        nn.Conv2d(8, 16, 1), nn.ReLU6(), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(),
        nn.Conv2d(16, 8, 1),
    )  # fmt: skip
    _, student = student_of(randomize(Pattern(body)), contract, symmetric=True)
    x = contract.normalize(make_faces().images[:8])
    rows = []
    for name in ("codes", "floats"):
        deliver(student, NCNN, tmp_path / f"{name}.param")
        terms = [line.integer(8) for line in NcnnFile(tmp_path / f"{name}.param").lines]
        assert any(term > 100 for term in terms) == (name == "codes")
        rows.append(room.open(tmp_path / f"{name}.param", 1)(x))
        monkeypatch.setattr(
            "efquantface.formats.ncnn_writer._Writer._step_read", lambda self, last: None
        )
    np.testing.assert_array_equal(*rows)


REFUSED = {
    "Gelu": lambda: Pattern(nn.Sequential(nn.Conv2d(8, 8, 1), nn.GELU(), nn.Conv2d(8, 8, 1))),
    "convolution of 2 groups": lambda: Pattern(nn.Conv2d(8, 8, 3, groups=2)),
    "MaxPool2d of ceil_mode": lambda: Pattern(nn.MaxPool2d(3, 2, ceil_mode=True)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_layer_is_refused_by_name(
    name: str, tmp_path: Path, contract: FaceContract
) -> None:
    _, student = student_of(REFUSED[name](), contract, symmetric=True)
    with pytest.raises(ExportError, match=f"1 {name}"):
        deliver(student, NCNN, tmp_path / "s.param")
    assert not list(tmp_path.iterdir())


def test_affine_codes_are_refused_with_the_way_out(
    tmp_path: Path, network: nn.Module, contract: FaceContract
) -> None:
    teacher, affine = student_of(network, contract)
    with pytest.raises(ExportError, match="--activations symmetric"):
        deliver(affine, NCNN, tmp_path / "s.param")
    with pytest.raises(ExportError, match="float network"):
        deliver(teacher, NCNN, tmp_path / "s.param")
    assert not list(tmp_path.iterdir())


def test_names_that_ncnn_reads_otherwise(tmp_path: Path, student: FaceModel) -> None:
    """Of blobs that are ours, of letters beyond ASCII, and too long ones."""
    modules = [n for n, m in module_nodes(student.graph) if isinstance(m, QuantConv2d)]
    for node, name in zip(modules, ("out0", "in0", "größe", "n" * 300), strict=False):
        student.graph.add_module(name, student.graph.get_submodule(str(node.target)))
        node.target = name
    student.graph.recompile()
    assert "layers compute" in deliver(student, NCNN, tmp_path / "s.param")[-1]
    names = [line.name for line in NcnnFile(tmp_path / "s.param").lines]
    assert len(names) == len(set(names))
    assert max(map(len, names)) < 256
    assert all(name.isascii() for name in names)


def test_a_file_that_ncnn_does_not_read(tmp_path: Path, student: FaceModel) -> None:
    deliver(student, NCNN, tmp_path / "s.param")
    (tmp_path / "s.bin").unlink()
    with pytest.raises(ModelFileError, match=r"s\.param"):
        room.open(tmp_path / "s.param")


def test_ncnn_missing_is_said_before_anything_is_written(
    tmp_path: Path, student: FaceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ncnn", None)
    with pytest.raises(MissingPackageError, match=r"efquantface\[ncnn\]"):
        deliver(student, NCNN, tmp_path / "s.param")
    assert not list(tmp_path.iterdir())


def test_the_network_is_the_same_each_time(student: FaceModel) -> None:
    first, second = (to_ncnn(for_ncnn(student)).network for _ in range(2))
    assert first.text() == second.text()
    assert first.weights == second.weights
    assert json.loads(student.contract.to_json())["embedding_size"] == 16


def test_a_float_network_is_not_for_ncnn(network: nn.Module, contract: FaceContract) -> None:
    assert "float network" in str(room.refused(load_model(network, contract=contract)))


@pytest.mark.parametrize("bits", ["w8a8", "w4a4"])
def test_what_rounding_explains_is_little(
    network: nn.Module, contract: FaceContract, bits: str
) -> None:
    form = for_ncnn(student_of(network, contract, bits, symmetric=True)[1])
    pixels = torch.from_numpy(contract.pixels(make_faces().images)).float()
    own, moved = form.embed_pixels(pixels).numpy(), shaken(form, pixels)
    assert not np.array_equal(own, moved)
    assert mean_cosine(own, moved) > 0.999
