"""The site that export writes, in a browser: its numbers are ours, anyone can use it, nothing leaves."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from chromium import CHROMIUM, Browser, Page, npm_packages, served
from conftest import SmallFaceNet, randomize
from efquantface import assets
from efquantface.contract import FaceContract
from efquantface.data.images import write_image
from efquantface.data.synthetic import load_generator, synthetic_faces
from efquantface.data.template import TEMPLATES, Template, warp
from efquantface.export.onnx_writer import write_onnx
from efquantface.formats.table import FORMATS
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
def teacher(crops: Image) -> FaceModel:
    """A network whose embeddings lie around zero, so that faces differ."""
    network = randomize(SmallFaceNet(size=SIDE))
    found: list[torch.Tensor] = []
    handle = network.fc.register_forward_hook(lambda *call: found.append(call[2]))
    with torch.no_grad():
        network(torch.from_numpy(CONTRACT.normalize(crops)))
        network.bn.running_mean.copy_(found[0].mean(0))
        network.bn.running_var.copy_(found[0].var(0))
        network.bn.bias.zero_()
    handle.remove()
    return load_model(network, contract=CONTRACT)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, teacher: FaceModel, crops: Image) -> Path:
    """A run's folder: teacher, student, and what was measured."""
    student = quantize(teacher, Scheme(Bits.parse("w8a8")))
    set_ranges(student.graph, [torch.from_numpy(CONTRACT.pixels(crops))])
    folder = tmp_path_factory.mktemp("run")
    write_onnx(teacher, folder / "teacher.onnx")
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


@pytest.fixture(scope="module")
def site(
    run: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """The folder, as a user gets it, with npm's packages.

    Of the float network where no runtime is asked for: a pixel that is rounded otherwise moves a code of
    a student, and in a network without training that is much.
    """
    try:
        packages = npm_packages()
    except RuntimeError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("sites") / "site"
    runtime = getattr(request, "param", None)
    model = (run, "--runtime", runtime) if runtime else (run / "teacher.onnx", "--float")
    assert efq("export", *model, "--format", "web", "-o", folder) == 0
    (folder / "node_modules").symlink_to(packages)
    return folder


@pytest.fixture
def address(site: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    with served(site, isolated=getattr(request, "param", False)) as place:
        yield place


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    opened = browser.page()
    opened.go(address)
    yield opened
    opened.close()
    assert opened.problems == []
    assert [r for r in opened.requests if not r.startswith((address, "data:", "blob:"))] == []


def ours(site: Path, *faces: Image) -> float:
    """The cosine of two crops by the site's model on this machine."""
    first, second = FORMATS["web"].room.open(site)(CONTRACT.normalize(np.stack(faces)))
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


@pytest.mark.parametrize("address", [False, True], indirect=True, ids=["plain", "isolated"])
@pytest.mark.parametrize("site", ["litert", "onnxruntime"], indirect=True, scope="module")
def test_cosine_of_crops_is_ours(page: Page, site: Path, crops: Image, tmp_path: Path) -> None:
    for same, second in ((True, 1), (False, 2)):
        expected = ours(site, crops[0], crops[second])
        assert (expected >= THRESHOLD) is same
        give(page, tmp_path, crops[0], crops[second])
        page.until(f"Math.abs({COSINE} - {expected}) < 1e-3")
        person = "Same person" if same else "Different people"
        assert page.js(RESULT) == f"{person}. Similarity {page.js(COSINE):.4f}, threshold 0.2500."
    assert page.js("document.getElementById('rate').value") == str(FAR)
    assert "lfw pairs (3,000 pairs" in page.js("document.body.innerText")
    if page.js("crossOriginIsolated"):
        assert any("threaded" in request for request in page.requests)
    packages = json.loads((site / "package.json").read_text())["dependencies"]
    used = {name for name in packages if any(f"node_modules/{name}/" in r for r in page.requests)}
    assert used == set(packages)


MARKS = "[...document.querySelectorAll('.marked .mark')]"
ARROWS = {
    (1, 0): ("ArrowRight", 39),
    (-1, 0): ("ArrowLeft", 37),
    (0, 1): ("ArrowDown", 40),
    (0, -1): ("ArrowUp", 38),
}


def marked(page: Page) -> npt.NDArray[np.float64]:
    """Where the marks on a photograph's eyes are (2,2)."""
    size = "m.parentElement.querySelector('canvas')"
    x = f"parseFloat(m.style.left) / 100 * {size}.width - 0.5"
    y = f"parseFloat(m.style.top) / 100 * {size}.height - 0.5"
    return np.array(page.js(f"{MARKS}.map(m => [{x}, {y}])"))


def tab_to(page: Page, what: str) -> None:
    """Press Tab until an expression about the element in focus is true."""
    for _ in range(30):
        page.key("Tab", 9)
        if page.js(f"(e => {what})(document.activeElement)"):
            return
    pytest.fail(f"Tab does not reach {what}")


def test_eyes_by_keyboard_alone(page: Page, site: Path, crops: Image, tmp_path: Path) -> None:
    """Tab to each mark, arrow keys: the crop is the one that our alignment cuts."""
    photo, eyes = photo_of(crops[0])
    give(page, tmp_path, photo, crops[3])
    page.until(f"{MARKS}.length === 2")
    assert "Tab to a mark" in page.until("document.querySelector('.status').textContent")
    for index, eye in enumerate(eyes):
        tab_to(page, f"e === {MARKS}[{index}]")
        for axis, steps in enumerate(np.rint(eye - marked(page)[index])):
            way = ARROWS[tuple(int(np.sign(steps)) if a == axis else 0 for a in (0, 1))]
            for _ in range(int(abs(steps)) // 10):
                page.key(*way, shift=True)
            for _ in range(int(abs(steps)) % 10):
                page.key(*way)
    found = marked(page)
    assert np.abs(found - eyes).max() <= 0.51
    cosine = page.until(COSINE)
    assert cosine == pytest.approx(ours(site, warp(photo, found, EYES), crops[3]), abs=1e-3)
    # nearly the crop that the photograph was made of, and nothing like one cut elsewhere
    assert cosine == pytest.approx(ours(site, crops[0], crops[3]), abs=0.1)
    assert abs(ours(site, warp(photo, found + 12, EYES), crops[3]) - cosine) > 0.01
    assert "pixels" in page.js(f"{MARKS}[0].ariaValueText")
    assert page.js(RESULT) == f"Similarity {cosine:.4f}."
    assert "no decision is made" in page.js("document.body.innerText")


def test_eyes_by_clicks_and_dragging(page: Page, site: Path, crops: Image, tmp_path: Path) -> None:
    """Clicks in any order; a mark is dragged, or moved by another click near it."""
    photo, eyes = photo_of(crops[0])
    give(page, tmp_path, photo, crops[3])
    page.until(f"{MARKS}.length === 2")
    page.js("document.querySelector('.photo').scrollIntoView({block: 'center'}); 1")
    box = "document.querySelector('.photo canvas').getBoundingClientRect()"
    left, top, width = page.js(f"(r => [r.left, r.top, r.width])({box})")

    def at(point: npt.NDArray[np.float64]) -> tuple[float, float]:
        x, y = (point + 0.5) * width / photo.shape[1] + (left, top)
        return float(x), float(y)

    page.mouse(*at(eyes[1]))
    page.mouse(*at(eyes[0] - 40))
    page.until(COSINE)
    page.mouse(*at(eyes[0] - 40), to=at(eyes[0]))
    expected = ours(site, warp(photo, eyes, EYES), crops[3])
    page.until(f"Math.abs({COSINE} - {expected}) < 0.02")
    found = marked(page)[::-1]
    assert np.abs(found - eyes).max() < 1.5
    assert page.js(COSINE) == pytest.approx(
        ours(site, warp(photo, found, EYES), crops[3]), abs=1e-3
    )


def test_a_click_on_a_mark_sets_it_there(page: Page, crops: Image, tmp_path: Path) -> None:
    give(page, tmp_path, photo_of(crops[0])[0])
    page.until(f"{MARKS}.length === 2")
    page.js(f"{MARKS}[1].scrollIntoView({{block: 'center'}}); 1")
    x, y = page.js(f"(r => [r.left, r.top])({MARKS}[1].getBoundingClientRect())")
    before = marked(page)
    page.mouse(x + 20, y + 16)
    assert page.js(f"{MARKS}.map(m => m.classList.contains('placed'))") == [False, True]
    moved = marked(page) - before
    assert (moved[0] == 0).all()
    assert moved[1, 0] > abs(moved[1, 1])  # four pixels to the right of its middle, as seen


def test_camera(page: Page) -> None:
    page.js("document.querySelector('.start').click()")
    page.until("document.querySelector('video').videoWidth")
    assert page.js("document.activeElement.className") == "take"
    page.key("Enter", 13, "\r")
    page.until(f"{MARKS}.length === 2")
    assert page.js("document.querySelector('video').srcObject.active") is False
    assert page.js("document.activeElement.role") == "slider"


def test_what_is_no_crop_is_said(page: Page, crops: Image, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    page.choose("input[type=file]", 1, tmp_path / "text.png")
    page.until("document.body.innerText.includes('text.png is no picture')")
    give(page, tmp_path, photo_of(crops[0])[0])
    page.until(f"{MARKS}.length === 2")
    enter = f"{MARKS}.forEach(m => m.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter'}})))"
    page.js(enter)
    page.until(f"{RESULT} === 'One face is ready.'")
    crop = "document.querySelector('.crop')"
    assert page.js(f"{crop}.checkVisibility()")
    # while the network still works on the face as it was
    wait = "new Promise((done) => setTimeout(done, 151))"
    page.js(f"{enter}; {wait}.then(() => document.querySelector('input[value=crop]').click())")
    page.until("document.body.innerText.includes('112 x 112 pixels, this picture 400 x 301')")
    page.js("new Promise((done) => setTimeout(done, 300))")
    assert page.js(RESULT) == "Choose two faces."
    assert not page.js(f"{crop}.checkVisibility()")


def test_alignment_is_ours_on_random_points(page: Page) -> None:
    """Photographs of odd sizes, halved or not, with eyes that lie anywhere."""
    rng = np.random.default_rng(0)
    worst = []
    for index in range(12):
        height, width = (int(v) for v in rng.integers(60, 400, 2))
        coarse = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        photo = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
        spread = (0.1, 0.5)[index % 2] if index < 10 else 2.0
        eyes = rng.uniform(0, 1, (2, 2)) * (width, height)
        eyes[1] = eyes[0] + (eyes[1] - eyes[0]) * spread
        rgba = np.dstack([photo, np.full((height, width), 255, np.uint8)])
        data = f"Uint8ClampedArray.from({rgba.ravel().tolist()})"
        image = f"{{width: {width}, height: {height}, data: {data}}}"
        points = f"{eyes.tolist()}, {EYES.array().tolist()}, {SIDE}, {SIDE}"
        code = f"import('./align.js').then(m => [...m.aligned({image}, {points}).data])"
        found = np.array(page.js(code)).reshape(SIDE, SIDE, 4)
        expected = warp(photo, eyes, EYES)
        assert (found[..., 3] == 255).all()
        difference = np.abs(found[..., :3] - expected.astype(int))
        assert difference.mean() < 0.5
        worst.append(float(np.percentile(difference, 99)))
    assert np.median(worst) <= 1, worst


def test_a_dropped_file(page: Page, crops: Image, tmp_path: Path) -> None:
    write_image(tmp_path / "crop.png", crops[0])
    data = list((tmp_path / "crop.png").read_bytes())
    page.js(f"""{{
        const given = new DataTransfer();
        given.items.add(new File([Uint8Array.from({data})], "crop.png", {{ type: "image/png" }}));
        const event = new DragEvent("drop", {{ dataTransfer: given, cancelable: true }});
        document.querySelectorAll(".stage")[1].dispatchEvent(event);
    }}""")
    page.until(f"{RESULT} === 'One face is ready.'")
    assert "Taken as it is." in page.js("document.querySelectorAll('.picture')[1].innerText")


@pytest.mark.parametrize("site", ["onnxruntime"], indirect=True)
def test_without_a_template_there_are_crops_only(
    site: Path, address: str, browser: Browser, crops: Image, tmp_path: Path
) -> None:
    settings = site / "efquantface.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eyes": None}))
    page = browser.page()
    page.go(address)
    give(page, tmp_path, crops[0], photo_of(crops[1])[0])
    page.until(f"{RESULT} === 'One face is ready.'")
    page.until("document.body.innerText.includes('this picture 400 x 301')")
    page.js("document.querySelectorAll('input[value=photo]')[1].click()")
    page.until("document.body.innerText.includes('names no template')")
    assert page.js(f"{MARKS}.some(m => m.checkVisibility())") is False
    page.close()


CONTROLS = {"button", "slider", "radio", "combobox", "textbox", "checkbox", "link"}


def test_a_screen_reader_is_told_everything(page: Page, crops: Image, tmp_path: Path) -> None:
    give(page, tmp_path, photo_of(crops[0])[0], photo_of(crops[2])[0])
    page.until(f"{MARKS}.length === 4")
    tree = page.tree()
    controls = [node for node in tree if node["role"] in CONTROLS]
    assert [node for node in controls if not node["name"]] == []
    assert [n["name"] for n in controls if n["role"] == "slider"] == ["First eye", "Second eye"] * 2
    assert {"First picture", "Second picture"} <= {n["name"] for n in tree if n["role"] == "region"}
    assert next(n["name"] for n in tree if n["role"] == "heading") == "Same person?"
    assert sum(node["role"] == "status" for node in tree) == 3
    assert page.js("document.documentElement.lang") == "en"
    assert page.js("[...document.querySelectorAll('canvas')].every(c => c.ariaLabel)")


LOW = """(() => {
    const light = (colour) => {
        const parts = colour.match(/[\\d.]+/g).map((v) => v / 255);
        const [r, g, b] = parts.map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (e) => {
        const colour = getComputedStyle(e).backgroundColor;
        return colour === "rgba(0, 0, 0, 0)" ? behind(e.parentElement) : colour;
    };
    return [...document.querySelectorAll("p, h1, h2, label, button, select, legend")]
        .filter((e) => e.checkVisibility() && e.textContent.trim())
        .map((e) => [e.textContent, light(getComputedStyle(e).color), light(behind(e))])
        .filter(([, a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5);
})()"""


@pytest.mark.parametrize("site", ["litert"], indirect=True)
def test_narrow_wide_light_and_dark(page: Page, crops: Image, tmp_path: Path) -> None:
    """No scrolling aside, and text that stands out (WCAG 2: 4.5 to 1)."""
    give(page, tmp_path, photo_of(crops[0])[0], crops[2])
    page.until(f"{MARKS}.length === 2")
    page.js(
        f"{MARKS}.forEach(m => m.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter'}})))"
    )
    page.until(COSINE)
    for width in (320, 390, 1280):
        for dark in (False, True):
            page.looks(width, dark=dark)
            assert page.js("document.documentElement.scrollWidth") <= width
            for outcome in ("same", "different"):
                page.js(f"document.getElementById('result').className = '{outcome}'")
                assert page.js(LOW) == []
    backs = set()
    for dark in (False, True):
        page.looks(390, dark=dark)
        backs.add(page.js("getComputedStyle(document.body).backgroundColor"))
    assert len(backs) == 2


WAYS = (
    "fetch(URL, {method: 'POST', body: 'face', mode: 'no-cors'})",
    "Promise.resolve(navigator.sendBeacon(URL, 'face'))",
    "new Promise((yes, no) => Object.assign(new Image(), {onload: yes, onerror: no, src: URL}))",
    "import(URL)",
)


def test_nothing_can_be_sent_elsewhere(page: Page) -> None:
    got: list[str] = []

    class Other(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            got.append(str(self.rfile.readline()))

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for way in WAYS:
            url = f"'http://127.0.0.1:{server.server_address[1]}/'"
            page.js(f"{way.replace('URL', url)}.catch(() => 0).then(() => 1)")
        server.shutdown()
    assert got == []
    assert sum("Content Security Policy" in problem for problem in page.problems) >= len(WAYS)
    page.problems.clear()
    page.requests.clear()
