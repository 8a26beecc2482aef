"""Readers of recipes, contracts and a run's thresholds."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import yaml

from efquantface.contract import FaceContract
from efquantface.formats.measured import decisions
from efquantface.importers.contracts import onnx_contract
from efquantface.recipe import Recipe
from fuzz.mutate import mutate_plain, mutate_text
from fuzz.target import Files, Target

_RECIPES = (
    {"teacher": "t.onnx", "faces": "faces"},
    {"teacher": "t.onnx", "faces": "f", "bits": "w4a8", "layers": {"conv*": "w8a8"}, "seed": 3},
    {"teacher": "t.pth", "faces": "f", "prune": "2.5ms", "bits": "w8a8", "budget": "600KB"},
)


def _recipe_seeds(folder: Path) -> list[Files]:
    return [{"recipe.yaml": Recipe.create(values).to_yaml().encode()} for values in _RECIPES]


def _read_recipe(folder: Path) -> None:
    found = Recipe.read(folder / "recipe.yaml")
    assert Recipe.create(found.model_dump()) == found


def _change_recipe(files: Files, draw: Random) -> Files:
    if draw.random() < 0.5:
        return {"recipe.yaml": mutate_text(files["recipe.yaml"], draw)}
    changed = mutate_plain(yaml.safe_load(files["recipe.yaml"]), draw)
    try:
        text = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)
    except (yaml.YAMLError, RecursionError):
        text = json.dumps(changed)
    return {"recipe.yaml": text.encode("utf-8", "surrogatepass")}


def _contract_seeds(folder: Path) -> list[Files]:
    contracts = (
        FaceContract(112, 112, 512),
        FaceContract(150, 150, 128, "BGR", template="dlib150"),
    )
    return [{"n.contract.json": c.to_json().encode(), "n.xml": b"<net/>"} for c in contracts]


def _read_contract(folder: Path) -> None:
    found = onnx_contract(folder / "n.xml")
    assert FaceContract.from_json(found.to_json()) == found
    assert found.describe()


def _change_contract(files: Files, draw: Random) -> Files:
    data = files["n.contract.json"]
    if draw.random() < 0.3:
        data = mutate_text(data, draw)
    else:
        data = json.dumps(mutate_plain(json.loads(data), draw)).encode()
    return {**files, "n.contract.json": data}


def _metrics_seeds(folder: Path) -> list[Files]:
    thresholds = [
        {"name": f"threshold at FAR={far}", "teacher": 0.4, "student": value, "note": ""}
        for far, value in (("0.01", 0.3), ("0.001", 0.4), ("0.0001", None))
    ]
    protocols = [
        {
            "protocol": f"{name} pairs",
            "counts": {"genuine": 10, "impostor": pairs, "images": 20},
            "flags": "flip off, embeddings normalized, cosine",
            "metrics": [*thresholds, {"name": "EER", "teacher": 0.1, "student": 0.1}],
        }
        for name, pairs in (("lfw", 3000), ("held-out all", 90_000))
    ]
    return [{"metrics.json": json.dumps({"protocols": protocols}).encode()}]


def _read_metrics(folder: Path) -> None:
    found = decisions(folder / "student.safetensors")
    assert all(0 < d["far"] < 1 and -1 <= d["threshold"] <= 1 for d in found)
    assert sum(d["preferred"] for d in found) == min(len(found), 1)
    json.dumps(found, allow_nan=False)


def _change_metrics(files: Files, draw: Random) -> Files:
    data = files["metrics.json"]
    if draw.random() < 0.3:
        return {"metrics.json": mutate_text(data, draw)}
    return {"metrics.json": json.dumps(mutate_plain(json.loads(data), draw)).encode()}


TARGETS = (
    Target("recipe", _recipe_seeds, _read_recipe, _change_recipe, short=400),
    Target("metrics", _metrics_seeds, _read_metrics, _change_metrics, short=1000),
    Target("contract", _contract_seeds, _read_contract, _change_contract, short=3000),
)
