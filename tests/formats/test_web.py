"""The site that export writes, in a browser: its numbers are ours, everyone can use it, nothing leaves it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from browser import CHROMIUM, Browser, Page, npm_packages, served
from conftest import SmallFaceNet, randomize
from efquantface import assets
from efquantface.contract import FaceContract
from efquantface.data.images import write_image
from efquantface.data.synthetic import load_generator, synthetic_faces
from efquantface.data.template import TEMPLATES, Template, warp
from efquantface.embedding.embedder import Embedder
from efquantface.graph.checkpoint import save_checkpoint
from efquantface.graph.model import FaceModel
from efquantface.importers.load import load_model
from efquantface.quantize.placement import quantize
from efquantface.quantize.ranges import set_ranges
from efquantface.quantize.scheme import Bits, Scheme
from program import efq

Image = npt.NDArray[np.uint8]
SIDE = 112
# nothing alike: a swapped channel, mean or std is seen
CONTRACT = FaceContract(SIDE, SIDE, 16, "BGR", (90.0, 120.0, 140.0), (40.0, 60.0, 80.0))
EYES = Template(SIDE, TEMPLATES["arcface112"].points[:2])
FAR, THRESHOLD = 0.001, 0.25
COSINE = "Number(document.getElementById('result').dataset.cosine)"
RESULT = "document.getElementById('result').textContent"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def crops() -> npt.NDArray[np.uint8]:
    """Two crops each of eight people of the default generator."""
    generator = load_generator(assets.path_of(assets.FACE_GENERATOR))
    return synthetic_faces(generator, CONTRACT, identities=8, images_each=2, seed=5).images


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, crops: Image) -> Path:
    """A run's folder: a student, and what was measured."""
    network = randomize(SmallFaceNet(size=SIDE))
    with torch.no_grad():  # embeddings around zero, so that faces differ
        found: list[torch.Tensor] = []
        handle = network.fc.register_forward_hook(lambda *call: found.append(call[2]))
        network(torch.from_numpy(CONTRACT.normalize(crops)))
        handle.remove()
        network.bn.running_mean.copy_(found[0].mean(0))
        network.bn.running_var.copy_(found[0].var(0))
        network.bn.bias.zero_()
    teacher = load_model(network, contract=CONTRACT)
    student = quantize(teacher, Scheme(Bits.parse("w8a8")))
    set_ranges(student.graph, [torch.from_numpy(CONTRACT.pixels(crops))])
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(student, folder / "student.safetensors")
    metric = {"name": f"threshold at FAR={FAR}", "teacher": 0.3, "student": THRESHOLD}
    protocol = {"protocol": "lfw pairs", "flags": "flip off, cosine", "metrics": [metric]}
    results = {"protocols": [{**protocol, "counts": {"impostor": 3000}}]}
    (folder / "metrics.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    opened = Browser()
    yield opened
    opened.close()


def site_of(run: Path, folder: Path, *options: str) -> Path:
    """The folder, as a user gets it, with npm's packages."""
    try:
        packages = npm_packages()
    except RuntimeError as error:
        pytest.skip(str(error))
    assert efq("export", run, "--format", "web", "-o", folder, *options) == 0
    (folder / "node_modules").symlink_to(packages)
    return folder


@pytest.fixture(scope="module", params=["onnxruntime"])
def site(run: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("sites") / "site"
    return site_of(run, folder, "--runtime", request.param)


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with served(site) as place:
        yield place


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    opened = browser.page()
    opened.go(address)
    yield opened
    assert opened.problems == []
    assert [r for r in opened.requests if not r.startswith((address, "data:", "blob:"))] == []


def ours(site: Path, *faces: Image) -> float:
    """The cosine of two crops by the site's model on this machine."""
    first, second = Embedder.open(next(site.glob("model.*"))).embed(np.stack(faces))
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def photo_of(crop: Image, angle: float = 20.0, scale: float = 1.7) -> tuple[Image, Image]:
    """A photograph with a crop in it, turned and scaled, and where its eyes are (2,2), whole pixels."""
    matrix = cv2.getRotationMatrix2D((56, 56), angle, scale)
    matrix[:, 2] += (120, 90)
    photo = cv2.warpAffine(crop, matrix, (400, 301), borderValue=(60, 90, 120))
    eyes = np.rint(EYES.array() @ matrix[:, :2].T + matrix[:, 2])
    return np.asarray(photo, np.uint8), eyes


def give(page: Page, folder: Path, *images: Image) -> None:
    """Choose pictures, the first one first."""
    for index, image in enumerate(images):
        path = folder / f"picture{index}.png"
        write_image(path, image)
        page.choose("input[type=file]", index, path)


def test_cosine_of_crops_is_ours(page: Page, site: Path, crops: Image, tmp_path: Path) -> None:
    found = []
    for pair in ((0, 1), (0, 2)):
        page.js("delete document.getElementById('result').dataset.cosine; 1")
        give(page, tmp_path, *(crops[i] for i in pair))
        found.append(page.until(COSINE))
        expected = ours(site, *(crops[i] for i in pair))
        assert found[-1] == pytest.approx(expected, abs=1e-3)
        said = page.js(RESULT)
        assert said.startswith("Same person" if expected >= THRESHOLD else "Different people")
        assert f"imilarity {found[-1]:.4f}" in said
    print(found)
    assert page.js("document.getElementById('rate').value") == str(FAR)
    assert "lfw pairs (3,000 pairs" in page.js("document.body.innerText")
