"""Checkpoints of the field are recognized by their tensors' names; what does not fit is named."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from conftest import randomize
from efquantface.backbones.edgeface import EdgeFace, EdgeFaceConfig
from efquantface.backbones.iresnet import IResNet
from efquantface.errors import ModelFileError
from efquantface.graph.model import FaceModel
from efquantface.importers.dialects import DIALECTS
from efquantface.importers.load import load_model
from foreign_nets import AdaFaceIr18, ArcFaceMbf, QuantFaceMobileFaceNet

FACES = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)


def embed(model: FaceModel) -> np.ndarray:
    return model.embed_pixels(torch.from_numpy(model.contract.pixels(FACES))).numpy()


def expect(module: nn.Module, model: FaceModel) -> None:
    with torch.no_grad():
        out = module(torch.from_numpy(model.contract.normalize(FACES)))
    wanted = (out[0] * out[1] if isinstance(out, tuple) else out).numpy()
    np.testing.assert_allclose(embed(model), wanted, atol=1e-4 * np.abs(wanted).max())


def test_arcface_torch_iresnet(tmp_path: Path) -> None:
    module = randomize(IResNet(18, 256))
    torch.save(module.state_dict(), tmp_path / "backbone.pth")
    model = load_model(tmp_path / "backbone.pth")
    expect(module, model)
    assert model.contract.color == "RGB"
    assert model.contract.embedding_size == 256
    assert model.contract.source.startswith("assumed")
    assert "arcface_torch / MagFace iresnet" in model.notes[0]


@pytest.mark.parametrize("se", [False, True])
def test_adaface_in_a_lightning_checkpoint(tmp_path: Path, se: bool) -> None:
    """Its names begin with ``model.``, a head stands beside it, and its pixels are BGR."""
    module = randomize(AdaFaceIr18(se))
    weights = {f"model.{k}": v for k, v in module.state_dict().items()}
    weights["head.kernel"] = torch.zeros(512, 10)
    stored = {"state_dict": weights, "epoch": 3, "hyper_parameters": Namespace(lr=0.1, arch="ir")}
    torch.save(stored, tmp_path / "adaface_ir18.ckpt")
    model = load_model(tmp_path / "adaface_ir18.ckpt")
    expect(module, model)
    assert model.contract.color == "BGR"
    assert "left out: 1 tensors of 'head'" in model.notes
    save_file({f"net.{k}": v for k, v in module.state_dict().items()}, tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors").contract.color == "RGB"  # CVLFace


@pytest.mark.parametrize("se", [False, True])
def test_ir_of_five_units(tmp_path: Path, se: bool) -> None:
    """InsightFace_Pytorch, face.evoLVe and CurricularFace: no BatchNorm in the middle of a block."""
    module = randomize(AdaFaceIr18(se, five=True))
    torch.save(module.state_dict(), tmp_path / "model_ir_se.pth")
    model = load_model(tmp_path / "model_ir_se.pth")
    expect(module, model)
    assert "InsightFace_Pytorch / face.evoLVe" in model.notes[0]
    assert model.readings == ("insightface", "adaface")


@pytest.mark.parametrize("wrapper", ["features.module.", "features."])
def test_magface(tmp_path: Path, wrapper: str) -> None:
    """arcface_torch's names behind a wrapper; its pixels are BGR / 255."""
    module = randomize(IResNet(18, 64))
    stored = {wrapper + k: v for k, v in module.state_dict().items()}
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    both = {"epoch": 25, "state_dict": {**stored, "fc.weight": torch.zeros(64, 9)}}
    torch.save({**both, "optimizer": optimizer}, tmp_path / "magface_epoch_00025.pth")
    model = load_model(tmp_path / "magface_epoch_00025.pth")
    expect(module, model)
    assert (model.contract.color, model.contract.std) == ("BGR", (255.0, 255.0, 255.0))
    assert "left out: 1 tensors of 'fc'" in model.notes


@pytest.mark.parametrize("first", ["state_optimizer", "ema"])
def test_several_dictionaries(tmp_path: Path, first: str) -> None:
    """The one that is a network of the field is taken, wherever it stands."""
    module = randomize(IResNet(18, 64))
    moments = {str(i): {k: torch.zeros(2) for k in "abcd"} for i in range(6)}
    head = {"weight": torch.zeros(9, 64), **{k: torch.zeros(1) for k in "bst"}}
    stored = {first: {"state": moments}, "model": head, "weights_of_net": module.state_dict()}
    torch.save(stored, tmp_path / "checkpoint_gpu_0.pt")
    model = load_model(tmp_path / "checkpoint_gpu_0.pt")
    expect(module, model)
    assert any("'weights_of_net'; left out: 'model', " in note for note in model.notes)


def test_weights_in_a_tuple(tmp_path: Path) -> None:
    module = randomize(IResNet(18, 64))
    torch.save((25, {"backbone": module.state_dict()}, [0.5]), tmp_path / "m.pth")
    expect(module, load_model(tmp_path / "m.pth"))


@pytest.mark.parametrize("blocks", [(1, 4, 6, 2), (2, 8, 12, 4)])
def test_arcface_torch_mbf(tmp_path: Path, blocks: tuple[int, ...]) -> None:
    module = randomize(ArcFaceMbf(blocks, scale=2 * blocks[0]))
    torch.save({f"module.{k}": v for k, v in module.state_dict().items()}, tmp_path / "mbf.pt")
    expect(module, load_model(tmp_path / "mbf.pt"))


@pytest.mark.parametrize("inside", ["", "output_layer."])
def test_quantface_mobilefacenet(tmp_path: Path, inside: str) -> None:
    module = randomize(QuantFaceMobileFaceNet())
    weights = {k.replace("output_layer.", inside): v for k, v in module.state_dict().items()}
    torch.save({"model": weights, "optimizer": {"lr": 1.0}}, tmp_path / "m.pth")
    expect(module, load_model(tmp_path / "m.pth"))


def test_edgeface_by_its_authors_names(tmp_path: Path) -> None:
    module = randomize(EdgeFace(EdgeFaceConfig(rank=0.6)))
    weights = {}
    for name, value in module.state_dict().items():
        for inner in ("gamma", "gamma_xca", "temperature"):
            name = name.replace(f".{inner}.weight", f".{inner}")
        for norm in ("stem.1", "downsample.0", "head.norm"):
            name = name.replace(f"{norm}.norm.", f"{norm}.")
        weights[f"model.{name}"] = value
    assert "model.stages.1.blocks.2.xca.temperature" in weights
    torch.save(weights, tmp_path / "edgeface_xs.pt")
    expect(module, load_model(tmp_path / "edgeface_xs.pt"))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    weights = IResNet(18, 64).state_dict()
    del weights["bn2.bias"]
    weights["layer1.0.extra"] = torch.zeros(3)
    weights["layer4.1.conv2.weight"] = torch.zeros(512, 512, 1, 1)
    torch.save(weights, tmp_path / "odd.pth")
    with pytest.raises(ModelFileError) as caught:
        load_model(tmp_path / "odd.pth")
    text = str(caught.value)
    assert "odd.pth" in text
    assert "missing: bn2.bias" in text
    assert "unexpected: layer1.0.extra" in text
    assert "layer4.1.conv2.weight (512, 512, 1, 1) instead of (512, 512, 3, 3)" in text
    assert "Export the network to ONNX" in text
    deep = {f"layer{n}.{b}.prelu.weight": torch.zeros(8) for n in (1, 2, 3, 4) for b in range(5)}
    torch.save(deep, tmp_path / "deep.pth")
    with pytest.raises(ModelFileError, match=r"stages of \(5, 5, 5, 5\) blocks.*ONNX"):
        load_model(tmp_path / "deep.pth")


@pytest.mark.parametrize("signature", [d.signature for d in DIALECTS])
@pytest.mark.parametrize("value", [torch.zeros(()), torch.zeros(0, 3), torch.zeros(8, 3, 1, 1)])
def test_a_signature_alone_is_an_error_with_a_way_out(
    tmp_path: Path, signature: str, value: torch.Tensor
) -> None:
    torch.save({signature: value, **dict.fromkeys("abcd", value)}, tmp_path / "odd.pth")
    with pytest.raises(ModelFileError, match=r"odd\.pth: named like .*, but .*Export the network"):
        load_model(tmp_path / "odd.pth")


def test_unknown_names_are_shown(tmp_path: Path) -> None:
    torch.save({f"encoder.{i}.w": torch.zeros(2) for i in range(5)}, tmp_path / "vit.pt")
    with pytest.raises(ModelFileError, match=r"encoder\.0\.w.*Export the network to ONNX"):
        load_model(tmp_path / "vit.pt")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A whole pickled module is refused with what to type; its code does not run."""
    torch.save(IResNet(18, 64), tmp_path / "module.pth")
    with pytest.raises(ModelFileError, match=r"would run code.*weights\.pth"):
        load_model(tmp_path / "module.pth")
    traced = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    traced.save(str(tmp_path / "script.pt"))
    with pytest.raises(ModelFileError, match="TorchScript"):
        load_model(tmp_path / "script.pt")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelFileError, match=r"cut\.pth: not a readable PyTorch file"):
        load_model(tmp_path / "cut.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ModelFileError, match="no state dict"):
        load_model(tmp_path / "empty.pth")


FOREIGN = {
    "m.param": (b"7767517\n75 83\n", "ncnn"),
    "m.tflite": (b"\x1c\x00\x00\x00TFL3\x14\x00", "TensorFlow Lite"),
    "renamed.dat2": (b"\x1c\x00\x00\x00TFL3\x14\x00", "TensorFlow Lite"),
    "m.engine": (b"ftrt\x00\x00\x00\x00", "TensorRT"),
    "model-0000.params": (b"\x12\x01\x00\x00\x00\x00\x00\x00", "MXNet"),
    "model-symbol.json": (b"{}", "MXNet"),
    "m.rknn": (b"RKNN\x00\x00", "RKNN"),
    "m.h5": (b"\x89HDF\r\n", "Keras"),
    "m.caffemodel": (b"\x0a\x08", "Caffe"),
}


@pytest.mark.parametrize("name", list(FOREIGN))
def test_files_of_other_worlds(tmp_path: Path, name: str) -> None:
    content, what = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=what) as caught:
        load_model(tmp_path / name)
    assert name in str(caught.value)
    assert "ONNX" in str(caught.value) or "onnx" in str(caught.value)


def test_a_bin_is_ncnns_beside_its_param(tmp_path: Path) -> None:
    torch.save(IResNet(18, 64).state_dict(), tmp_path / "pytorch_model.bin")
    assert load_model(tmp_path / "pytorch_model.bin").parameters > 1e6
    (tmp_path / "n.param").write_bytes(b"7767517\n")
    (tmp_path / "n.bin").write_bytes(bytes(64))
    with pytest.raises(ModelFileError, match="ncnn"):
        load_model(tmp_path / "n.bin")
