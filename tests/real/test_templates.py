"""An IJB-style protocol made of real photos, against an independent script."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from PIL import Image
from sklearn.metrics import roc_curve

from conftest import SHARED
from efquantface.data.detect import detect
from efquantface.data.images import read_image
from efquantface.pipeline.compress import compress

pytestmark = pytest.mark.real
PEOPLE = 44  # with fewer, impostor pairs do not reach down to FAR=1e-3
POINTS = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def build(root: Path) -> None:
    """People of LFW with at least four photos: two templates each, photos of a template two a medium."""
    (root / "meta").mkdir(parents=True)
    (root / "loose_crop").mkdir()
    marks, crops, templates = [], [], []
    folders = [p for p in sorted((SHARED / "data/lfw150").iterdir()) if len(list(p.glob("*"))) >= 4]
    for person, folder in enumerate(folders[:PEOPLE]):
        found = [(p, detect(read_image(p))) for p in sorted(folder.glob("*.jpg"))[:6]]
        photos = [(p, faces[0]) for p, faces in found if faces]
        if len(photos) < 4:
            continue
        half = len(photos) // 2
        for part, members in enumerate((photos[:half], photos[half:])):
            template = 2 * person + part
            templates.append((template, person))
            for i, (path, face) in enumerate(members):
                name = f"{len(marks)}.jpg"
                (root / "loose_crop" / name).write_bytes(path.read_bytes())
                points = " ".join(f"{v:.4f}" for v in face.landmarks.reshape(-1))
                marks.append(f"{name} {points} {face.confidence:.4f}")
                crops.append(f"{name} {template} {i // 2}")
    pairs = [
        f"{a} {b} {int(x == y)}"
        for i, (a, x) in enumerate(templates)
        for b, y in templates[i + 1 :]
    ]
    gallery = [f"{t},{p}" for t, p in templates if t % 2 == 0 and p % 3]
    probes = [f"{t},{p}" for t, p in templates if t % 2 == 1]
    meta = root / "meta"
    (meta / "x_name_5pts_score.txt").write_text("\n".join(marks))
    (meta / "x_face_tid_mid.txt").write_text("\n".join(crops))
    (meta / "x_template_pair_label.txt").write_text("\n".join(pairs))
    (meta / "x_1N_gallery_G1.csv").write_text("\n".join(["TEMPLATE_ID,SUBJECT_ID", *gallery]))
    (meta / "x_1N_probe_mixed.csv").write_text("\n".join(["TEMPLATE_ID,SUBJECT_ID", *probes]))


def similarity(points: np.ndarray) -> np.ndarray:
    """The least-squares similarity as four unknowns of a linear system."""
    x, y = points[:, 0], points[:, 1]
    ones, zeros = np.ones(5), np.zeros(5)
    system = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    a, b, tx, ty = np.linalg.lstsq(
        system, np.concatenate([POINTS[:, 0], POINTS[:, 1]]), rcond=None
    )[0]
    return np.array([[a, -b, tx], [b, a, ty]])


def independent(root: Path, model: Path) -> dict[str, float]:
    """The protocol with plain loops: N1D1F1, TAR by scikit-learn's ROC, TPIR by sorting."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    sums: dict[int, dict[int, list[np.ndarray]]] = {}
    marks = (root / "meta/x_name_5pts_score.txt").read_text().splitlines()
    crops = (root / "meta/x_face_tid_mid.txt").read_text().splitlines()
    for mark, crop in zip(marks, crops, strict=True):
        file, *numbers = mark.split()
        values = np.array([np.float32(n) for n in numbers], np.float64)
        image = np.asarray(Image.open(root / "loose_crop" / file).convert("RGB"))
        warped = cv2.warpAffine(image, similarity(values[:10].reshape(5, 2)), (112, 112))
        embedding = 0
        for side in (warped, warped[:, ::-1]):
            pixels = side.transpose(2, 0, 1)[None].astype(np.float32)
            embedding = embedding + session.run(None, {name: pixels})[0][0].astype(np.float64)
        _, template, medium = crop.split()
        media = sums.setdefault(int(template), {})
        media.setdefault(int(medium), []).append(embedding * values[10])
    vectors = {}
    for template, media in sums.items():
        total = sum(np.mean(v, axis=0) for v in media.values())
        vectors[template] = total / np.linalg.norm(total)
    pairs = [
        [int(v) for v in line.split()]
        for line in (root / "meta/x_template_pair_label.txt").read_text().splitlines()
    ]
    scores = np.array([vectors[a] @ vectors[b] for a, b, _ in pairs])
    fpr, tpr, _ = roc_curve([s for _, _, s in pairs], scores, drop_intermediate=False)
    out = {f"TAR@FAR={far:g}": tpr[fpr <= far].max() for far in (1e-1, 1e-2, 1e-3)}
    lists = []
    for file in ("x_1N_gallery_G1.csv", "x_1N_probe_mixed.csv"):
        rows = (root / "meta" / file).read_text().splitlines()[1:]
        lists.append([tuple(int(v) for v in row.split(",")) for row in rows])
    gallery, probes = lists
    tops, mates, ranks = [], [], []
    for template, person in probes:
        found = {p: vectors[template] @ vectors[t] for t, p in gallery}
        if person in found:
            mates.append(found[person])
            ranks.append(sum(v > found[person] for v in found.values()) + 1)
        else:
            tops.append(max(found.values()))
    out["rank-1"] = np.mean(np.array(ranks) == 1)
    for fpir in (0.01, 0.1):
        edge = sorted(tops, reverse=True)[int(fpir * len(tops))]
        out[f"TPIR@FPIR={fpir:g}"] = np.mean(np.array(mates) > edge)
    return out


def test_ijb_style_protocol_against_an_independent_script(tmp_path: Path) -> None:
    root = tmp_path / "ijb"
    build(root)
    teacher = SHARED / "weights" / "y1.onnx"
    people = tmp_path / "faces"
    people.mkdir()
    for folder in sorted((SHARED / "data/faces6k").iterdir())[:8]:
        (people / folder.name).symlink_to(folder, target_is_directory=True)
    done = compress(
        teacher,
        people,
        tmp_path / "run",
        epochs=0,
        benchmark=False,
        cache=False,
        quiet=True,
        calibration_images=64,
        eval=(f"ijb={root}",),
    )
    stored = json.loads((tmp_path / "run/metrics.json").read_text())["protocols"]
    assert [p["protocol"] for p in stored] == ["ijb 1:1", "ijb 1:N"]
    for column, model in (("teacher", teacher), ("student", done.run.onnx)):
        expected = independent(root, model)
        found = {m["name"]: m[column] for p in stored for m in p["metrics"]}
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-6), (column, name)
