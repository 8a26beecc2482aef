"""Every suite as data: which networks, which recipe overrides, which faces, which seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from efquantface.recipe import Recipe

from .digest import recipe_digest

FACES = "faces6k"  # of --shared; another set is given by --faces
USUAL = "union"  # of `sets`; tables name another one
SEEDS = 3
BITS = ("w8a8", "w6a8", "w4a8", "w6a6", "w4a4")
QUANTFACE = "QuantFace's rule"
STATIC = ("quantize_static MinMax", "quantize_static Percentile")
NNCF = "NNCF"


@dataclass(frozen=True)
class Network:
    """A teacher: a file of ``--shared/weights``, or a default's name.

    Attributes:
        preprocess: for files that do not say it.
        dlib: it wants dlib's crops, which ``--dlib`` gives.
    """

    file: str
    preprocess: str | None = None
    dlib: bool = False

    def path(self, shared: Path) -> str:
        """Its file, or the name of a default."""
        return self.file if self.dlib else str(shared / "weights" / self.file)


NETWORKS = {
    "y1": Network("y1.onnx"),
    "foamliu_mobilefacenet": Network("foamliu_mobilefacenet.onnx", "imagenet"),
    "mobileface2": Network("mobileface2.onnx"),
    "edgeface_xs": Network("edgeface_xs.onnx"),
    "foamliu_mobilefacenet.pt": Network("foamliu_mobilefacenet.pt", "imagenet"),
    "dlib": Network("dlib-resnet", dlib=True),
}
THREE = ("y1", "foamliu_mobilefacenet", "mobileface2")

# Epochs where two are too few: the held-out loss falls for longer.
EPOCHS = {"w4a8": 4, "w4a4": 8}


@dataclass(frozen=True)
class Cell:
    """One row to measure.

    Attributes:
        options: of the recipe, beside teacher, faces and seed.
        faces: None takes the training set of the call.
        way: how the student is made: ``compress``, or a peer's name.
        by_processor: the row belongs to a kind of processor, and its speed is measured at once.
    """

    suite: str
    network: str
    name: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    seed: int | None = 0
    faces: str | None = None
    way: str = "compress"
    by_processor: bool = False

    @property
    def full(self) -> str:
        """``NETWORK/NAME seed N``: what ``--only`` is compared with."""
        seed = "" if self.seed is None else f" seed {self.seed}"
        return f"{self.network}/{self.name}{seed}"

    def recipe(self, teacher: str = "teacher", faces: str = "faces", **more: Any) -> Recipe:
        """The recipe of a row that ``compress`` makes."""
        given = {
            "teacher": teacher,
            "faces": faces,
            "preprocess": NETWORKS[self.network].preprocess,
            "seed": self.seed or 0,
            "benchmark": False,
            **self.options,
            **more,
        }
        return Recipe.create(given, self.full)

    @property
    def digest(self) -> str | None:
        """Of today's recipe; a peer has none."""
        return recipe_digest(self.recipe()) if self.way == "compress" else None


def _bits(seeds: int) -> Iterator[Cell]:
    for network in THREE:
        for bits in BITS:
            options = {"bits": bits, "epochs": EPOCHS.get(bits, 2)}
            for seed in range(seeds):
                yield Cell("bits", network, bits, options, seed)
            yield Cell("bits", network, f"{bits} untrained", {"bits": bits, "epochs": 0})
        yield Cell("bits", network, "w8a8 full range", {"full_range": True})


def _pruning(seeds: int) -> Iterator[Cell]:
    for network in ("y1", "mobileface2", "dlib"):
        for share in (0.25, 0.5):
            for seed in range(seeds):
                options = {"prune": share, "bits": "w8a8"}
                yield Cell("pruning", network, f"{share:.0%} w8a8", options, seed)


def _synthetic(seeds: int) -> Iterator[Cell]:
    for network in THREE:
        for bits in ("w8a8", "w4a8"):
            for seed in range(seeds):
                options = {"bits": bits, "epochs": EPOCHS.get(bits, 2)}
                yield Cell("synthetic", network, bits, options, seed, "synthetic:6000")


def _peers(seeds: int) -> Iterator[Cell]:
    for network in THREE:
        for method in (*STATIC, NNCF):
            yield Cell("peers", network, method, seed=None, way=method)
        for bits in ("w6a6", "w4a4"):
            options = {"bits": bits, "epochs": EPOCHS.get(bits, 2)}
            name = f"{QUANTFACE}, {bits}"
            yield Cell("peers", network, name, options, way=QUANTFACE)


def _processors(seeds: int) -> Iterator[Cell]:
    rows: dict[str, dict[str, Any]] = {bits: {"bits": bits} for bits in ("w8a8", "w6a8", "w4a8")}
    rows["w8a8 full range"] = {"full_range": True}
    for network in THREE:
        for name, options in rows.items():
            untrained = {**options, "epochs": 0, "rounding": "nearest"}
            yield Cell("processors", network, name, untrained, by_processor=True)


def _networks(seeds: int) -> Iterator[Cell]:
    for network in ("edgeface_xs", "foamliu_mobilefacenet.pt", "dlib"):
        for seed in range(seeds):
            yield Cell("networks", network, "w8a8", {}, seed)


def _losses(seeds: int) -> Iterator[Cell]:
    ways = {
        "both": {"metric": "ours"},
        "metric alone": {"metric": "ours", "loss": "none"},
        "ekd": {"metric": "ekd"},
    }
    for bits in ("w8a8", "w6a6", "w4a4"):
        for way, options in ways.items():
            for seed in range(seeds):
                both = {"bits": bits, "epochs": 3 if bits == "w4a4" else 2, **options}
                yield Cell("losses", "y1", f"{bits} {way}", both, seed)


def _images(seeds: int) -> Iterator[Cell]:
    for count in (500, 1000, 2000, 4000):
        for seed in range(seeds):
            options = {"bits": "w6a6", "max_images": count}
            yield Cell("images", "y1", f"w6a6, {count:,} images", options, seed)


_SUITES = {
    "bits": ("loss and speed by bits, three networks", _bits),
    "pruning": ("a quarter and half of the multiply-accumulates, in W8A8", _pruning),
    "processors": ("speed and right sums on this kind of processor, not trained", _processors),
    "peers": ("quantize_static, NNCF, QuantFace's rule", _peers),
    "synthetic": ("trained on synthetic faces alone", _synthetic),
    "networks": ("other networks in W8A8", _networks),
    "losses": ("what a metric loss adds", _losses),
    "images": ("how many images are enough", _images),
}
SUITES = {name: what for name, (what, _) in _SUITES.items()}


def cells(suite: str, seeds: int = SEEDS) -> list[Cell]:
    """All cells of a suite.

    Raises:
        KeyError: there is no such suite.
    """
    return list(_SUITES[suite][1](seeds))


def chosen(found: list[Cell], patterns: list[str]) -> list[Cell]:
    """Cells whose full name one of the patterns is the beginning of, or matches (``*``, ``?``)."""
    if not patterns:
        return found
    return [
        cell
        for cell in found
        if any(cell.full.startswith(p) or fnmatchcase(cell.full, p) for p in patterns)
    ]
