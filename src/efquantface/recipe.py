"""One description of a run: the YAML file, the command line's flags and the API's keywords alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from efquantface.contract import PREPROCESS
from efquantface.distill.settings import TrainSettings
from efquantface.errors import RecipeError
from efquantface.evaluation.groups import read_groups
from efquantface.evaluation.items import Options
from efquantface.evaluation.templates import TemplateFlags
from efquantface.prune.goal import PruneGoal
from efquantface.quantize.mixed import parse_budget
from efquantface.quantize.scheme import Bits, Scheme

FLOAT = "float"  # bits of a student that is pruned only
PRUNED_EPOCHS = 12  # a pruned network starts far from its teacher, and still gains in the twelfth


def _parsed(bits: str) -> str:
    try:
        return str(Bits.parse(bits))
    except RecipeError as error:
        raise ValueError(str(error)) from None


class EvalSettings(BaseModel):
    """On what and how teacher and student are compared; the recipe's ``evaluation:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    eval: tuple[str, ...] = Field((), description="NAME=PATH or PATH, for example lfw=DIR")
    flip: bool = Field(False, description="add the mirror image's embedding")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="a cosine threshold you deploy: adds FAR and FRR there"
    )
    arcface: bool = Field(False, description="also the numbers that arcface_torch prints")
    group_by: str | None = Field(None, description="CSV of name, group: spread between groups")
    templates: str = Field("N1D1F1", description="how IJB's crops are pooled")

    @field_validator("templates")
    @classmethod
    def _templates(cls, value: str) -> str:
        try:
            return str(TemplateFlags.parse(value))
        except RecipeError as error:
            raise ValueError(str(error)) from None

    def options(self) -> Options:
        """As evaluation takes it.

        Raises:
            DataError: the table of groups cannot be used.
        """
        groups = read_groups(Path(self.group_by)) if self.group_by else {}
        flags = TemplateFlags.parse(self.templates)
        return Options(self.flip, self.threshold, self.arcface, groups, flags)


_NESTED: dict[str, type[BaseModel]] = {"training": TrainSettings, "evaluation": EvalSettings}
_RENAMED = {"step_lr": "range_lr", "images_each": "images_per_identity"}
_GONE = {"devices": 1}  # fields of old recipes, and the one value that may still stand there


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Flat settings (flags, keywords, old recipes) at their places in ``training`` and ``evaluation``.

    A flat value wins over a nested one. None means: not told.
    """
    found: dict[str, Any] = {}
    parts = {name: dict(values.get(name) or {}) for name in _NESTED}
    for key, value in values.items():
        name = _RENAMED.get(key, key)
        if value is None or name in _NESTED or (name in _GONE and value == _GONE[name]):
            continue
        part = next((p for p, kind in _NESTED.items() if name in kind.model_fields), None)
        (found if part is None else parts[part])[name] = value
    return {**found, **{name: part for name, part in parts.items() if part}}


class Recipe(BaseModel):
    """Everything that decides what a run does. Validated here and nowhere else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: str = Field(description="ONNX file, checkpoint, run folder or name of a default")
    faces: str = Field(description="folder of aligned crops, or synthetic:COUNT")
    bits: str = Field(
        "w8a8", description="bits of weights and activations, 2 to 8 each, or float (pruned only)"
    )
    prune: float | str | None = Field(
        None, description="share of multiply-accumulates to remove, or a time of one crop (2.5ms)"
    )
    importance: Literal["taylor", "magnitude"] = Field(
        "taylor", description="of channels: by the embedding's loss, or by weights alone"
    )
    round_to: int = Field(8, ge=1, le=64, description="channels left are a multiple of it")
    layers: dict[str, str] = Field({}, description="bits of layers by shell pattern of their names")
    wide_ends: bool = Field(False, description="first and last layer keep 8 bits")
    activations: Literal["affine", "symmetric"] = Field(
        "affine", description="symmetric: signed codes with zero point 0"
    )
    budget: str | None = Field(None, description="file size (600KB, 2MB) or share (60%)")
    preprocess: str | None = Field(None, description="insightface, adaface, imagenet or raw")
    licence: str = Field("", description="the teacher's licence note, stored in the student")

    rounding: Literal["auto", "reconstruct", "nearest"] = Field(
        "auto", description="layer by layer against the teacher, or to the nearest code"
    )
    calibration_images: int = Field(256, ge=8, description="images that ranges are searched on")
    hold_out: float = Field(0.1, gt=0, lt=0.9, description="share of identities held out")
    exclude: str | None = Field(None, description="list of images to leave out (efq data check)")
    max_images: int = Field(14_000, ge=8, description="larger sets of faces are capped")

    resize: bool = Field(False, description="scale crops of another size")
    check_alignment: bool = Field(True, description="compare landmarks with the template")
    anyway: bool = Field(False, description="go on where a check of the teacher fails")
    cache: bool = Field(True, description="keep teacher embeddings in the user cache")
    benchmark: bool = Field(True, description="measure speed at the end")
    report_faces: bool = Field(False, description="show faces in the report")

    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    threads: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, description="of everything random")

    training: TrainSettings = TrainSettings()
    evaluation: EvalSettings = EvalSettings()

    @field_validator("bits")
    @classmethod
    def _bits(cls, value: str) -> str:
        return value if value == FLOAT else _parsed(value)

    @field_validator("layers")
    @classmethod
    def _layers(cls, value: dict[str, str]) -> dict[str, str]:
        return {pattern: _parsed(bits) for pattern, bits in value.items()}

    @field_validator("budget")
    @classmethod
    def _budget(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                parse_budget(value, 1.0)
        except RecipeError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("preprocess")
    @classmethod
    def _preprocess(cls, value: str | None) -> str | None:
        if value is not None and value not in PREPROCESS:
            raise ValueError(f"choose from {', '.join(PREPROCESS)}")
        return value

    @classmethod
    def create(cls, values: dict[str, Any], where: str = "recipe") -> Recipe:
        """Validate values (None means: the default, which for ``bits`` and ``epochs`` knows ``prune``).

        Raises:
            RecipeError: naming every field that is wrong, and its value.
        """
        try:
            given = nested(values)
            if "prune" in given:
                given["training"] = {"epochs": PRUNED_EPOCHS, **given.get("training", {})}
                if "bits" not in given and "budget" not in given:
                    given["bits"] = FLOAT  # pruned only
            return cls(**given)
        except ValidationError as error:
            problems = [
                f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']} (got {e.get('input')!r})"
                for e in error.errors()
            ]
            raise RecipeError(f"{where}: " + "; ".join(problems)) from None

    @classmethod
    def read(cls, path: Path, overrides: dict[str, Any] | None = None) -> Recipe:
        """Read a YAML recipe; ``overrides`` that are not None win over the file.

        Raises:
            RecipeError: the file is missing, not YAML, or holds wrong values.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read ({error})") from None
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}: is not YAML ({error})") from None
        if not isinstance(values, dict):
            raise RecipeError(f"{path}: holds no recipe (a YAML mapping is expected)")
        base, given = nested(values), nested(overrides or {})
        for name in _NESTED:
            given[name] = {**base.get(name, {}), **given.get(name, {})}
        return cls.create({**base, **given}, str(path))

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        values = self.model_dump(mode="json")
        return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))

    @field_validator("prune")
    @classmethod
    def _share_or_time(cls, value: float | str | None) -> float | str | None:
        if value is None:
            return None
        try:
            goal = PruneGoal.parse(value)
        except RecipeError as error:
            raise ValueError(str(error)) from None
        return str(value) if goal.share is None else goal.share

    @property
    def prune_goal(self) -> PruneGoal | None:
        """What pruning is asked for."""
        return None if self.prune is None else PruneGoal.parse(self.prune)

    @model_validator(mode="after")
    def _pruned_or_quantized(self) -> Recipe:
        if self.bits == FLOAT and self.prune is None:
            raise ValueError("bits float: nothing would be compressed; give prune, or bits")
        return self

    @property
    def quantizes(self) -> bool:
        """Whether the student is quantized, not only pruned."""
        return self.bits != FLOAT

    @property
    def scheme(self) -> Scheme:
        """The bits as a scheme."""
        return Scheme(
            Bits.parse(self.bits),
            tuple((pattern, Bits.parse(bits)) for pattern, bits in self.layers.items()),
            self.wide_ends,
            self.activations == "symmetric",
        )

    @property
    def reconstructs(self) -> bool:
        """Whether weights are rounded against the teacher.

        A network that is not trained any further gains by it at any bits. With low-bit activations it
        fits weights to inputs that training is about to mend, and training ends worse than from the
        nearest codes (docs/results.md).
        """
        if not self.quantizes:
            return False
        wide = Bits.parse(self.bits).activation == 8
        return self.rounding == "reconstruct" or (
            self.rounding == "auto" and (wide or not self.training.epochs)
        )
