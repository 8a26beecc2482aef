"""An assumed preprocessing that separates worse than another is found out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from conftest import make_faces
from efquantface.cli.main import main
from efquantface.console import Console
from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.data.images import write_image
from efquantface.errors import NotRecognizingError, PreprocessError
from efquantface.export.onnx_writer import write_onnx
from efquantface.importers.load import load_model
from efquantface.pipeline import preflight
from efquantface.pipeline.compress import compress
from efquantface.pipeline.preflight import check_preprocessing, model_digest

FAST = {"quiet": True, "benchmark": False, "cache": False, "bits": "w8a8", "epochs": 0}


class OnlyRedInRange(nn.Module):
    """Separates by the first channel, and only where its input lies in -1..1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 8, stride=8)
        self.clip = nn.Hardtanh(-1, 1)
        self.fc = nn.Linear(16 * 16, 16)
        with torch.no_grad():
            self.conv.weight.normal_(0, 0.02)
            self.conv.weight[:, 1:] = 0
            self.conv.bias.zero_()
            self.fc.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.clip(self.conv(x)), 1))


class OnlyPixels(OnlyRedInRange):
    """The same, but only where its input is pixels; otherwise it sees next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = nn.Hardtanh(20, 235)
        with torch.no_grad():
            self.conv.weight[:, 0] = 1 / 64
            self.conv.bias.normal_(0, 0.5)


def red_people(people: int = 40, each: int = 4, seed: int = 0) -> FaceSet:
    """People who differ in red only; blue is the same noise for everybody."""
    faces = make_faces(identities=people, each=each, seed=seed)
    faces.images[:, :, 16:] = faces.images[:, :, 15::-1]  # as faces are, about symmetric
    faces.images[..., 2] = make_faces(identities=people * each, each=1, seed=9).images[..., 0]
    return faces


def pixels_file(folder: Path, *, stored: bool = False) -> Path:
    """A network that wants pixels, as a file that says so or not."""
    torch.manual_seed(0)
    raw = FaceContract(32, 32, 16, mean=(0, 0, 0), std=(1, 1, 1), template="unknown")
    write_onnx(load_model(OnlyPixels().eval(), contract=raw), folder / "pixels.onnx")
    if not stored:
        model = onnx.load(str(folder / "pixels.onnx"))
        del model.metadata_props[:]
        onnx.save(model, str(folder / "pixels.onnx"))
    return folder / "pixels.onnx"


def test_colour_order_is_found_out() -> None:
    torch.manual_seed(0)
    network = OnlyRedInRange().eval()
    faces, console = red_people(), Console(quiet=True)
    right = FaceContract(32, 32, 16, template="unknown", source="assumed")
    check_preprocessing(load_model(network, contract=right), faces, console)
    wrong = replace(right, color="BGR")
    with pytest.raises(PreprocessError, match=r"Add --preprocess (insightface|imagenet)"):
        check_preprocessing(load_model(network, contract=wrong), faces, console)


@pytest.mark.parametrize("labelled", [False, True])
def test_a_run_under_the_wrong_preprocessing_stops(tmp_path: Path, labelled: bool) -> None:
    path, faces = pixels_file(tmp_path), red_people()
    faces = faces if labelled else faces.unlabelled()
    with pytest.raises(PreprocessError, match=r"pixels\.onnx.* Add --preprocess raw;") as error:
        compress(path, faces, tmp_path / "run", **FAST)
    for name in ("as found 0.", "adaface 0.", "imagenet 0.", "raw ", "raw-bgr 0.", "unit 0."):
        assert name in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pixels.onnx"]
    for told in ({"preprocess": "raw"}, {"preprocess": "insightface"}, {"anyway": True}):
        compress(path, faces, tmp_path / "run", force=True, **told, **FAST)


def test_told_wrongly_it_warns_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user knows better, also where labels say that a stated preprocessing is wrong."""
    model = load_model(pixels_file(tmp_path), preprocess="insightface")
    check_preprocessing(model, red_people(), Console())
    assert "'raw' does better" in " ".join(capsys.readouterr().out.split())


def test_what_the_file_says_is_believed(tmp_path: Path) -> None:
    model = load_model(pixels_file(tmp_path, stored=True))
    assert model.contract.is_raw_pixels
    check_preprocessing(model, red_people(), Console(quiet=True))


def test_the_command_line_says_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = red_people()
    for name, image in zip(faces.names, faces.images, strict=True):
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "faces" / name, image)
    words = [pixels_file(tmp_path), tmp_path / "faces", "-o", tmp_path / "run"]
    monkeypatch.setattr("sys.argv", ["efq", "compress", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "--preprocess raw" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_another_sample_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """With enough faces, what one sample shows by chance stops no run."""
    torch.manual_seed(0)
    wrong = FaceContract(32, 32, 16, color="BGR", template="unknown", source="assumed")
    model = load_model(OnlyRedInRange().eval(), contract=wrong)
    first, second = preflight._samples(red_people(100), 160)
    assert len(first.images) == len(second.images) == 160
    alike = (first.images[:, None] == second.images[None]).all(axis=(2, 3, 4))
    assert not alike.any()
    monkeypatch.setattr(
        preflight, "_samples", lambda *_: [first, replace(second, same=second.same)]
    )
    with pytest.raises(PreprocessError):
        check_preprocessing(model, red_people(), Console(quiet=True))
    nobody = replace(second, same=np.random.default_rng(0).permutation(second.same))
    nobody = replace(nobody, same=nobody.same | nobody.same.T)  # type: ignore[union-attr]
    monkeypatch.setattr(preflight, "_samples", lambda *_: [first, nobody])
    check_preprocessing(model, red_people(), Console(quiet=True))


def test_mirror_images_do_not_tell_colours_apart(tmp_path: Path) -> None:
    """Red and blue alike: BGR may win by chance, RGB is named, and the doubt is said."""
    model, faces = load_model(pixels_file(tmp_path)), red_people().unlabelled()
    faces.images[..., 2] = faces.images[..., 0]
    with pytest.raises(PreprocessError, match=r"Add --preprocess raw;.*look that up"):
        check_preprocessing(model, faces, Console(quiet=True))
    scores = {"as found": 0.9, "raw": 0.9990, "raw-bgr": 0.9999}
    sample = preflight._samples(faces, 160)[0]
    assert preflight._best(scores, sample) == "raw"
    assert preflight._best(scores, preflight._samples(red_people(), 160)[0]) == "raw-bgr"


def test_samples_hold_many_people_a_few_times() -> None:
    faces = make_faces(identities=60, each=30)
    sample = preflight._samples(faces, 160)[0]
    assert sample.same is not None
    assert (sample.same.sum(axis=1) == 4).all()
    single = faces.subset(np.flatnonzero((faces.identities % 2 == 0) | (np.arange(1800) % 30 == 0)))
    again = preflight._samples(single, 120)[0]
    assert again.same is not None
    assert (again.same.sum(axis=1) == 4).all()


def test_few_people_are_as_good_as_unlabelled() -> None:
    assert preflight._samples(make_faces(identities=7, each=20), 160)[0].same is None
    assert preflight._samples(make_faces(identities=40, each=1), 160)[0].same is None
    assert preflight._samples(make_faces(identities=8, each=20), 160)[0].same is not None


def test_digest_follows_weights(network: nn.Module, contract: FaceContract) -> None:
    first = model_digest(load_model(network, contract=contract))
    assert first == model_digest(load_model(network, contract=contract))
    with torch.no_grad():
        network.fc.weight[0, 0] += 1  # type: ignore[union-attr, index]
    assert first != model_digest(load_model(network, contract=contract))


@pytest.mark.parametrize("source", ["assumed", "declared", "graph constants", "--preprocess raw"])
def test_a_network_that_recognizes_nobody_stops_the_run(
    network: nn.Module, contract: FaceContract, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    with torch.no_grad():
        network.fc.weight.mul_(1e-6)  # type: ignore[union-attr, operator]
        network.bn.running_mean.fill_(-1.0)  # type: ignore[union-attr, operator]
    model = load_model(network, contract=replace(contract, source=source))
    faces = make_faces(identities=60, each=4)
    faces.images[:] = np.random.default_rng(0).integers(0, 256, faces.images.shape)
    with pytest.raises(NotRecognizingError, match=r"under no known preprocessing.*raw-bgr 0"):
        check_preprocessing(model, faces, Console())
    check_preprocessing(model, faces, Console(), anyway=True)
    assert "going on anyway" in " ".join(capsys.readouterr().out.split())
    check_preprocessing(model, faces.unlabelled(), Console())


def test_of_two_readings_the_better_one_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both are tried on faces; the run goes on with the winner, which is said."""
    torch.manual_seed(0)
    contract = FaceContract(32, 32, 16, template="unknown", source="assumed by the family")
    module = OnlyRedInRange().eval()

    def load(
        given: object,
        *,
        contract: object = None,
        preprocess: str | None = None,
        size: object = None,
    ) -> object:
        form = base if preprocess is None else base.with_preprocess(preprocess)
        other = "insightface" if first == "adaface" else "adaface"
        model = load_model(module, contract=form)
        return replace(model, readings=(first, other) if preprocess is None else ())

    monkeypatch.setattr("efquantface.pipeline.teacher.load_model", load)
    for first, wanted in (("adaface", "RGB"), ("insightface", "RGB")):
        base = contract.with_preprocess(first)
        run = compress(module, red_people(), tmp_path / first, **FAST)
        assert run.student.contract.color == wanted
        found = run.student.contract.source
        assert found.startswith("tried on faces" if first == "adaface" else "assumed")


def test_grey_faces_choose_no_colour_order() -> None:
    torch.manual_seed(0)
    contract = FaceContract(32, 32, 16, template="unknown", source="assumed by the family")
    model = load_model(OnlyRedInRange().eval(), contract=contract.with_preprocess("adaface"))
    model.readings = ("adaface", "insightface")
    faces, console = red_people(), Console(quiet=True)
    assert preflight.better_reading(model, faces, console) == "insightface"
    faces.images[:] = faces.images[..., :1]
    assert preflight.better_reading(model, faces, console) is None
    assert preflight.better_reading(model, faces.unlabelled(), console) is None
