"""IJB from files of its form, against plain loops; damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import make_faces
from efquantface.contract import FaceContract
from efquantface.data.images import write_image
from efquantface.data.template import TEMPLATES
from efquantface.errors import CropError, DataError, EvaluationError
from efquantface.evaluation.benchmarks.ijb import TemplateSet
from efquantface.evaluation.benchmarks.load import load_eval
from efquantface.evaluation.items import Options
from efquantface.evaluation.run import score_item
from efquantface.evaluation.templates import TemplateFlags
from pooling import pooled_by_loops

RNG = np.random.default_rng(5)


CONTRACT = FaceContract(112, 112, 16)


def ijb(root: Path) -> None:
    """Six people of three templates; their photos are patterns, the landmarks shifted templates."""
    faces = make_faces(6, 6, size=128)
    points = TEMPLATES["arcface112"].array()
    (root / "loose_crop").mkdir(parents=True)
    (root / "meta").mkdir()
    marks, crops = [], []
    for i, image in enumerate(faces.images):
        write_image(root / "loose_crop" / f"{i + 1}.png", image)
        shifted = points + RNG.uniform(2, 12, 2)
        marks.append(" ".join([f"{i + 1}.png", *(f"{v:.3f}" for v in shifted.reshape(-1)), "0.9"]))
        crops.append(f"{i + 1}.png {100 + i // 2} {i % 2 if i % 4 < 2 else 0}")
    pairs = [
        f"{100 + a} {100 + b} {int(a // 3 == b // 3)}" for a in range(18) for b in range(a + 1, 18)
    ]
    meta = {
        "ijbc_name_5pts_score.txt": marks,
        "ijbc_face_tid_mid.txt": crops,
        "ijbc_template_pair_label.txt": pairs,
        "ijbc_1N_gallery_G1.csv": ["T,S,F", *(f"{100 + 3 * p},{p},x" for p in range(4))],
        "ijbc_1N_gallery_G2.csv": ["T,S,F", *(f"{100 + 3 * p},{p},x" for p in range(2, 6))],
        "ijbc_1N_probe_mixed.csv": [
            "T,S,F",
            *(f"{100 + 3 * p + k},{p},x" for p in range(6) for k in (1, 2)),
        ],
    }
    for name, lines in meta.items():
        (root / "meta" / name).write_text("\n".join(lines) + "\n")


class Colours:
    """Embeds a crop as its mean colours in a grid, which is enough to tell patterns apart."""

    name = "colours"

    def embed(
        self, faces: np.ndarray, *, flip: bool = False, progress: object = None
    ) -> np.ndarray:
        cells = faces.reshape(len(faces), 4, 28, 4, 28, 3).mean(axis=(2, 4)).reshape(len(faces), -1)
        out = (cells - 127).astype(np.float32)
        return out + self.embed(faces[:, :, ::-1]) if flip else out


def loaded(root: Path) -> TemplateSet:
    (item,) = load_eval(f"ijbc={root}", CONTRACT)
    assert isinstance(item, TemplateSet)
    return item


def test_ijb_from_its_files(tmp_path: Path) -> None:
    ijb(tmp_path)
    item = loaded(tmp_path)
    options = Options(templates=TemplateFlags.parse("N1D1F0"))
    embedded = item.embed(Colours(), options)
    one, many = score_item(item, [embedded, embedded], options)
    assert one.flags == "template flags N1D1F0, cosine"
    assert one.counts == {"genuine": 18, "impostor": 135, "images": 36, "templates": 18}
    rows = Colours().embed(np.stack([item.crop(i) for i in range(36)]))
    flags = pooled_by_loops(rows, item.templates, item.media, item.confidence, "N1D1F0")
    scores = flags @ flags.T
    who = np.arange(18) // 3
    upper = np.triu(np.ones((18, 18), bool), 1)
    impostor = np.sort(scores[upper & (who[:, None] != who)])[::-1]
    genuine = scores[upper & (who[:, None] == who)]
    expected = (genuine > impostor[int(0.1 * 135)] + 1e-7).mean()
    assert one.metric("TAR@FAR=0.1").teacher == pytest.approx(expected)
    assert (
        one.metric("teacher's gallery, student's probes").student
        == one.metric("student's gallery, teacher's probes").teacher
    )
    # rank-1 of both galleries, by hand
    rates = []
    for people in (range(4), range(2, 6)):
        hits = [
            max(people, key=lambda p: scores[3 * p, 3 * q + k]) == q for q in people for k in (1, 2)
        ]
        rates.append(np.mean(hits))
    assert many.metric("rank-1").teacher == pytest.approx(np.mean(rates))
    assert many.metric("TPIR@FPIR=0.1").student == many.metric("TPIR@FPIR=0.1").teacher


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("ijbc_template_pair_label.txt", "100 999 0", "1 templates .* first is 999"),
        ("ijbc_template_pair_label.txt", "100 101 7", r":1: the label is 7"),
        ("ijbc_template_pair_label.txt", "100 x 1", "ijbc_template_pair_label.txt: .*x"),
        ("ijbc_face_tid_mid.txt", "9.png 100 0", "names other crops"),
        ("ijbc_face_tid_mid.txt", "1.png 100", ":1: 2 columns, 3 are needed"),
        ("ijbc_name_5pts_score.txt", "1.png 1 2 3", ":1: 4 columns, 12 are needed"),
        (
            "ijbc_name_5pts_score.txt",
            "1.png" + " nan" * 11,
            ":1: holds a number that is not finite",
        ),
        ("ijbc_name_5pts_score.txt", "1.png" + " 1e300" * 11, ":1: .* not finite in 32 bits"),
        ("ijbc_face_tid_mid.txt", "1.png 100.5 0", ":1: .* whole numbers"),
        ("ijbc_face_tid_mid.txt", "1.png 100 1e20", ":1: .* whole numbers"),
        ("ijbc_1N_probe_mixed.csv", "T,S\nx,1", ":2: 'x,1' is not"),
        ("ijbc_1N_probe_mixed.csv", "T,S\n\x1f999,1", "1 templates .* first is 999"),
        ("ijbc_1N_probe_mixed.csv", "T,S\n101,1\n101,2", ":3: template 101 has two subjects"),
    ],
)
def test_damaged_ijb(tmp_path: Path, name: str, line: str, message: str) -> None:
    ijb(tmp_path)
    path = tmp_path / "meta" / name
    rest = path.read_text().splitlines()[1:]
    path.write_text("\n".join([line, *rest]) + "\n")
    with pytest.raises(DataError, match=message):
        loaded(tmp_path)


def test_missing_crops_stop_the_evaluation(tmp_path: Path) -> None:
    ijb(tmp_path)
    item = loaded(tmp_path)
    (tmp_path / "loose_crop" / "7.png").write_bytes(b"no image")
    with pytest.raises(EvaluationError, match=r"7\.png: cannot be read"):
        item.embed(Colours(), Options())
    with pytest.raises(CropError, match="takes 32x32"):
        load_eval(f"ijbc={tmp_path}", FaceContract(32, 32, 16))
