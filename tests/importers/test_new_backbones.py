"""FaceNet, the vision transformer and LightCNN: their authors' modules against what is imported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conftest import make_faces, randomize
from efquantface.backbones.inception_resnet import InceptionResnetV1
from efquantface.data.faces import FaceSet
from efquantface.errors import ModelFileError
from efquantface.export import alone
from efquantface.export.onnx_writer import write_onnx
from efquantface.export.parity import check_parity
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.pipeline.compress import compress
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Scheme
from students import FAST


def crops(size: int, people: int = 6) -> FaceSet:
    """Small faces, enlarged."""
    faces = make_faces(identities=people, each=2)
    images = torch.from_numpy(faces.images).permute(0, 3, 1, 2).float()
    large = F.interpolate(images, (size, size), mode="bilinear").round().byte()
    faces.images = large.permute(0, 2, 3, 1).numpy().copy()
    return faces


def expect(wanted: Tensor, model: FaceModel, faces: FaceSet, *, unit: bool = False) -> None:
    found = model.embed_pixels(torch.from_numpy(model.contract.pixels(faces.images[:2])))
    found = F.normalize(found) if unit else found
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large networks are embedded crop by crop; tests/export has the batches above 64."""
    monkeypatch.setattr(alone, "BATCHES", (1, 3))


def whole_way(path: Path, size: int) -> None:
    assert compress(path, crops(size), path.parent / "run", **FAST).parity is not None


def short_way(model: FaceModel, faces: FaceSet, path: Path) -> None:
    """For large networks: a student of two crops, exported and checked."""
    images = faces.images[:2]
    student = quantize(model, Scheme())
    set_ranges(student.graph, [torch.from_numpy(model.contract.pixels(images))])
    write_onnx(student, path)
    teacher = model.embed_pixels(torch.from_numpy(model.contract.pixels(images))).numpy()
    parity = check_parity(student, path, images, teacher)
    assert parity.executed.integer_convolutions == parity.executed.convolutions
    parity.check(path)


# --- FaceNet ---------------------------------------------------------------------------------


class _Unit(nn.Module):
    def __init__(self, i: int, o: int, k: int | tuple[int, int], s: int = 1, p: object = 0) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(i, o, k, s, p, bias=False), nn.BatchNorm2d(o, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Res(nn.Module):
    def __init__(
        self, branches: list[nn.Module], inner: int, width: int, scale: float, last: bool
    ) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            setattr(self, f"branch{i}", branch)
        self.conv2d, self.n, self.scale, self.last = (
            nn.Conv2d(inner, width, 1),
            len(branches),
            scale,
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([getattr(self, f"branch{i}")(x) for i in range(self.n)], 1)
        y = self.conv2d(y) * self.scale + x
        return y if self.last else F.relu(y)


class _Cat(_Res):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__(list(branches), 1, 1, 1.0, False)
        del self.conv2d

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([getattr(self, f"branch{i}")(x) for i in range(self.n)], 1)


class FaceNet(nn.Module):
    """Inception-ResNet-v1 with a residual block of each kind, as facenet-pytorch names it."""

    def __init__(self) -> None:
        super().__init__()
        s, u = nn.Sequential, _Unit
        self.conv2d_1a, self.conv2d_2a = u(3, 32, 3, 2), u(32, 32, 3)
        self.conv2d_2b, self.conv2d_3b = u(32, 64, 3, 1, 1), u(64, 80, 1)
        self.conv2d_4a, self.conv2d_4b = u(80, 192, 3), u(192, 256, 3, 2)
        a = [u(256, 32, 1), s(u(256, 32, 1), u(32, 32, 3, 1, 1))]
        a.append(s(u(256, 32, 1), u(32, 32, 3, 1, 1), u(32, 32, 3, 1, 1)))
        self.repeat_1 = s(_Res(a, 96, 256, 0.17, False))
        inner = s(u(256, 192, 1), u(192, 192, 3, 1, 1), u(192, 256, 3, 2))
        self.mixed_6a = _Cat(u(256, 384, 3, 2), inner, nn.MaxPool2d(3, 2))
        b = s(u(896, 128, 1), u(128, 128, (1, 7), 1, (0, 3)), u(128, 128, (7, 1), 1, (3, 0)))
        self.repeat_2 = s(_Res([u(896, 128, 1), b], 256, 896, 0.1, False))
        self.mixed_7a = _Cat(
            s(u(896, 256, 1), u(256, 384, 3, 2)),
            s(u(896, 256, 1), u(256, 256, 3, 2)),
            s(u(896, 256, 1), u(256, 256, 3, 1, 1), u(256, 256, 3, 2)),
            nn.MaxPool2d(3, 2),
        )

        def last(scale: float, final: bool) -> nn.Module:
            c = s(u(1792, 192, 1), u(192, 192, (1, 3), 1, (0, 1)), u(192, 192, (3, 1), 1, (1, 0)))
            return _Res([u(1792, 192, 1), c], 384, 1792, scale, final)

        self.repeat_3, self.block8 = s(last(0.2, False)), last(1.0, True)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn, self.logits = nn.BatchNorm1d(512, eps=0.001), nn.Linear(512, 9)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))), 3, 2)
        x = self.repeat_1(self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x))))
        x = self.repeat_3(self.mixed_7a(self.repeat_2(self.mixed_6a(x))))
        x = self.block8(x).mean((2, 3))
        return F.normalize(self.last_bn(self.last_linear(x)))


def test_facenet(tmp_path: Path) -> None:
    module, faces = randomize(FaceNet()), crops(160)
    path = tmp_path / "20180402-114759-vggface2.pt"
    torch.save(module.state_dict(), path)
    model = load_model(path)
    with torch.no_grad():
        wanted = module((torch.from_numpy(faces.images[:2]).permute(0, 3, 1, 2) - 127.5) / 128)
    expect(wanted, model, faces, unit=True)
    assert (model.contract.height, model.contract.std[0]) == (160, 128.0)
    assert "left out: 2 tensors of 'logits'" in model.notes
    short_way(model, faces, tmp_path / "student.onnx")


def test_facenet_of_its_size() -> None:
    """As many parameters as the published one without its logits."""
    with torch.device("meta"):
        assert sum(p.numel() for p in InceptionResnetV1().parameters()) == 23_482_624


# --- the vision transformer of arcface_torch -------------------------------------------------


class _Attention(nn.Module):
    def __init__(self, c: int, bias: bool) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(c, 3 * c, bias=bias), nn.Linear(c, c)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 8, c // 8).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * (c // 8) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


class _Block(nn.Module):
    def __init__(self, c: int, bias: bool) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attn = nn.LayerNorm(c), nn.LayerNorm(c), _Attention(c, bias)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(c, 3 * c), nn.Linear(3 * c, c)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(F.relu6(self.mlp.fc1(self.norm2(x))))


class Vit(nn.Module):
    def __init__(self, c: int = 32, patch: int = 28, bias: bool = False) -> None:
        super().__init__()
        n = (112 // patch) ** 2
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, c, patch, patch)
        self.pos_embed = nn.Parameter(torch.randn(1, n, c))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c))
        self.blocks = nn.ModuleList(_Block(c, bias) for _ in range(2))
        self.norm = nn.LayerNorm(c)
        self.feature = nn.Sequential(
            nn.Linear(c * n, c, bias=False),
            nn.BatchNorm1d(c, eps=2e-5),
            nn.Linear(c, 64, bias=False),
            nn.BatchNorm1d(64, eps=2e-5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.feature(self.norm(x).flatten(1))


@pytest.mark.parametrize(("patch", "bias"), [(28, False), (9, True)])
def test_vit(tmp_path: Path, patch: int, bias: bool) -> None:
    module, faces = randomize(Vit(patch=patch, bias=bias)), crops(112)
    path = tmp_path / "model.pt"
    torch.save({f"module.{k}": v for k, v in module.state_dict().items()}, path)
    model = load_model(path)
    with torch.no_grad():
        wanted = module(torch.from_numpy(model.contract.normalize(faces.images[:2])))
    expect(wanted, model, faces)
    if patch == 28:
        whole_way(path, 112)


def test_a_vit_of_other_crops(tmp_path: Path) -> None:
    weights = Vit().state_dict()
    weights["pos_embed"] = torch.zeros(1, 64, 32)
    torch.save(weights, tmp_path / "vit.pt")
    with pytest.raises(ModelFileError, match=r"64 patches of 28x28.*Export the network to ONNX"):
        load_model(tmp_path / "vit.pt")


# --- LightCNN --------------------------------------------------------------------------------


class _Mfm(nn.Module):
    def __init__(self, i: int, o: int, k: int = 3, p: int = 1, linear: bool = False) -> None:
        super().__init__()
        self.filter = nn.Linear(i, 2 * o) if linear else nn.Conv2d(i, 2 * o, k, 1, p)

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(*self.filter(x).chunk(2, 1))


class _Group(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.conv_a, self.conv = _Mfm(i, i, 1, 0), _Mfm(i, o)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv_a(x))


class _Pair(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _Mfm(c, c), _Mfm(c, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x)) + x


class Light29(nn.Module):
    def __init__(self, inputs: int, second: bool) -> None:
        super().__init__()
        widths = ((48, 96), (96, 192), (192, 128), (128, 128))
        self.conv1, self.second = _Mfm(inputs, 48, 5, 2), second
        for n, (i, o) in enumerate(widths, 1):
            setattr(self, f"block{n}", nn.Sequential(*(_Pair(i) for _ in range(n % 2))))
            setattr(self, f"group{n}", _Group(i, o))
        self.fc = nn.Linear(8192, 256) if second else _Mfm(8192, 256, linear=True)
        self.fc2 = nn.Linear(256, 9)

    def pool(self, x: Tensor) -> Tensor:
        largest = F.max_pool2d(x, 2, 2, ceil_mode=not self.second)
        return largest + F.avg_pool2d(x, 2) if self.second else largest

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x))
        x = self.pool(self.group1(self.block1(x)))
        x = self.pool(self.group2(self.block2(x)))
        x = self.group4(self.block4(self.group3(self.block3(x))))
        return self.fc(self.pool(x).flatten(1))


class Light9(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        pools = [nn.MaxPool2d(2, 2, ceil_mode=True) for _ in range(4)]
        inner = [_Group(48, 96), pools[1], _Group(96, 192), pools[2], _Group(192, 128)]
        self.features = nn.Sequential(
            _Mfm(1, 48, 5, 2), pools[0], *inner, _Group(128, 128), pools[3]
        )
        self.fc1, self.fc2 = _Mfm(8192, 256, linear=True), nn.Linear(256, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc1(self.features(x).flatten(1))


LIGHT = {
    "29, second version": lambda: Light29(1, True),
    "29, colour": lambda: Light29(3, True),
    "29, first version": lambda: Light29(1, False),
    "9": Light9,
}


@pytest.mark.parametrize("name", list(LIGHT))
def test_lightcnn(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    module, faces = randomize(LIGHT[name]()), crops(128)
    path = tmp_path / "LightCNN_checkpoint.pth.tar"
    weights = {f"module.{k}": v for k, v in module.state_dict().items()}
    torch.save({"epoch": 1, "arch": "LightCNN", "state_dict": weights}, path)
    model = load_model(path)
    x = torch.from_numpy(faces.images[:2]).permute(0, 3, 1, 2) / 255
    if name != "29, colour":
        x = (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    with torch.no_grad():
        wanted = module(x)
    expect(wanted, model, faces)
    assert np.isfinite(wanted.numpy()).all()
    short_way(model, faces, tmp_path / "student.onnx")


# --- GhostFaceNet ----------------------------------------------------------------------------


class _GhostUnit(nn.Module):
    def __init__(self, i: int, o: int, act: bool, attention: bool) -> None:
        super().__init__()
        h, end = o // 2, (lambda: [nn.PReLU()] if act else [])
        first = [nn.Conv2d(i, h, 1, bias=False), nn.BatchNorm2d(h), *end()]
        cheap = [nn.Conv2d(h, h, 3, 1, 1, groups=h, bias=False), nn.BatchNorm2d(h), *end()]
        self.primary_conv, self.cheap_operation = nn.Sequential(*first), nn.Sequential(*cheap)
        self.short_conv = None
        if attention:
            self.short_conv = nn.Sequential(
                nn.Conv2d(i, o, 1, bias=False),
                nn.BatchNorm2d(o),
                nn.Conv2d(o, o, (1, 5), padding=(0, 2), groups=o, bias=False),
                nn.BatchNorm2d(o),
                nn.Conv2d(o, o, (5, 1), padding=(2, 0), groups=o, bias=False),
                nn.BatchNorm2d(o),
            )

    def forward(self, x: Tensor) -> Tensor:
        a = self.primary_conv(x)
        out = torch.cat([a, self.cheap_operation(a)], 1)
        if self.short_conv is None:
            return out
        gate = torch.sigmoid(self.short_conv(F.avg_pool2d(x, 2)))
        return out * F.interpolate(gate, size=out.shape[2:], mode="nearest")


class _GhostSe(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv_reduce, self.act1 = nn.Conv2d(c, 8, 1), nn.PReLU()
        self.conv_expand = nn.Conv2d(8, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_expand(self.act1(self.conv_reduce(x.mean((2, 3), keepdim=True))))
        return x * (F.relu6(y + 3.0) / 6.0)


class _GhostBlock(nn.Module):
    def __init__(self, i: int, m: int, o: int, k: int, s: int, se: bool, attention: bool) -> None:
        super().__init__()
        self.ghost1 = _GhostUnit(i, m, True, attention)
        if s > 1:
            self.conv_dw = nn.Conv2d(m, m, k, s, k // 2, groups=m, bias=False)
            self.bn_dw = nn.BatchNorm2d(m)
        self.se = _GhostSe(m) if se else None
        self.ghost2, self.shortcut = _GhostUnit(m, o, False, False), nn.Sequential()
        if s > 1 or i != o:
            self.shortcut = nn.Sequential(
                nn.Conv2d(i, i, k, s, k // 2, groups=i, bias=False),
                nn.BatchNorm2d(i),
                nn.Conv2d(i, o, 1, bias=False),
                nn.BatchNorm2d(o),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.ghost1(x)
        y = self.bn_dw(self.conv_dw(y)) if hasattr(self, "conv_dw") else y
        y = y if self.se is None else self.se(y)
        return self.ghost2(y) + self.shortcut(x)


class Ghost(nn.Module):
    """A short GhostFaceNetV2; maps of 56, 28, 14, 7 and 4."""

    def __init__(self, second: bool, linear: bool) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(16), nn.PReLU()
        rows = [
            [(16, 16, 16, 3, 1, False, False)],
            [(16, 48, 24, 3, 2, False, False), (24, 32, 24, 3, 1, False, second)],
            [(24, 72, 24, 5, 2, True, second)],
            [(24, 32, 24, 3, 2, False, second)],
            [(24, 32, 32, 5, 2, False, second), (32, 40, 32, 5, 1, True, second)],
        ]
        stages = [nn.Sequential(*(_GhostBlock(*row) for row in stage)) for stage in rows]
        last = nn.Module()
        last.conv, last.bn1, last.act1 = (
            nn.Conv2d(32, 48, 1, bias=False),
            nn.BatchNorm2d(48),
            nn.PReLU(),
        )
        self.blocks = nn.ModuleList([*stages, nn.ModuleList([last])])
        c = self.classifier = nn.Module()
        c.conv_dw, c.bn1 = nn.Conv2d(48, 48, 4, groups=48, bias=False), nn.BatchNorm2d(48)
        c.conv, c.bn2 = nn.Conv2d(48, 64, 1, bias=False), nn.BatchNorm1d(64)
        c.linear = nn.Linear(64, 32) if linear else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv_stem(x)))
        for stage in self.blocks[:-1]:
            x = stage(x)
        last, c = self.blocks[-1][0], self.classifier
        x = c.bn1(c.conv_dw(last.act1(last.bn1(last.conv(x)))))
        return c.linear(c.bn2(c.conv(x).flatten(1)))


@pytest.mark.parametrize(("second", "linear"), [(True, False), (False, True)])
def test_ghostfacenet(tmp_path: Path, second: bool, linear: bool) -> None:
    module, faces = randomize(Ghost(second, linear)), crops(112)
    torch.save(module.state_dict(), tmp_path / "ghostfacenet.pth")
    model = load_model(tmp_path / "ghostfacenet.pth")
    with torch.no_grad():
        wanted = module(torch.from_numpy(model.contract.normalize(faces.images[:2])))
    expect(wanted, model, faces)
    whole_way(tmp_path / "ghostfacenet.pth", 112)
