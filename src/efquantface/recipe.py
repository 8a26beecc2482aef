"""The recipe: one description of a run for the YAML file, the command line and Python.

A setting is declared once, as a field with name, type, limits and help (``description``). Its
``json_schema_extra`` holds the ``group`` of its flag (none for the most important ones), a ``flag`` of
another name, and the default as it is ``shown``. The command line is made from these fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from efquantface.contract import PREPROCESS, parse_size
from efquantface.data.settings import FaceSettings
from efquantface.distill.settings import TrainSettings
from efquantface.errors import RecipeError
from efquantface.evaluation.settings import EvalSettings
from efquantface.fields import flag_name, sentences
from efquantface.given import (
    NESTED,
    check_device_name,
    check_preprocess,
    check_size,
    nested,
    told,
)
from efquantface.prune.goal import PruneGoal
from efquantface.prune.settings import PruneSettings
from efquantface.quantize.budget import parse_budget
from efquantface.quantize.scheme import Bits, Scheme
from efquantface.quantize.settings import BitSettings
from efquantface.reading import parse_yaml
from efquantface.target.goal import Target
from efquantface.text import plain

FLOAT = "float"  # bits of a student that is pruned only
PRUNED_EPOCHS = 12  # a pruned network starts far from its teacher, and gains up to the twelfth
FLAGS = "command line"  # source of settings; errors then name flags instead of fields

_RUN: dict[str, JsonValue] = {"group": "The run"}


def _flag(name: str) -> str:
    return name.upper() if name in ("teacher", "faces") else flag_name(Recipe, name)


class Asked(BaseModel):
    """What is compressed, to what, and where: the settings that matter first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: str = Field(
        description="ONNX file, checkpoint of a known backbone, run folder or name of a default"
    )
    faces: str = Field(
        description="folder of aligned crops (a subfolder an identity, or images without "
        "identities, or .tar or .parquet files), InsightFace .rec, .parquet or list file; or "
        "synthetic:COUNT"
    )
    bits: str = Field(
        "w8a8",
        description="bits of weights and activations: w8a8 (fastest, closest), w6a8 or w4a8 (smaller "
        "files, as fast). Fewer activation bits (w6a6, w4a4) make no file smaller or faster in ONNX "
        "Runtime or OpenVINO; they are for NPUs and for comparison with papers. 4, int4 or 4bit "
        "alone means w4a8. float: pruned only",
        json_schema_extra={"shown": "w8a8, and float where only --prune is given"},
    )
    prune: float | str | None = Field(
        None,
        description="share of multiply-accumulates to remove, by removing channels: 0.25, 0.5; or "
        "the time that one crop may take on one thread of this machine: 2.5ms. Alone it gives a "
        "smaller float network; with --bits that network is quantized, too",
    )
    budget: str | None = Field(
        None,
        description="largest file (600KB, 2MB, or 60% of the 8-bit file): chooses 4, 6 or 8 bits for "
        "the weights of each layer by what the layer loses",
    )
    target: str | None = Field(
        None,
        description="goal for the student: 'TAR@1e-4 -0.3' (at most 0.3 points less TAR at that "
        "FAR), a file size (600KB, 60%) or a time (2.5ms). Ways of compressing are tried without "
        "training, the loss after training is predicted, and the best that meets the target is "
        "trained; instead of bits, prune and budget",
    )
    preprocess: str | None = Field(
        None,
        description=f"{', '.join(PREPROCESS)}: for files that do not say how pixels are normalized; "
        "efq inspect MODEL --faces DIR tries them",
    )
    size: str | None = Field(
        None,
        description="height and width of crops (160, or 112x96), for files that leave them open; "
        "otherwise those of the given crops",
    )
    device: str = Field("cpu", description="cpu, cuda, or cuda:1 (the second GPU)")
    devices: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="processes that train together, each on its own device. torchrun starts them, also "
        "on several machines; without torchrun they are started here",
        json_schema_extra={"shown": "1, or as many as torchrun started"},
    )


class Recipe(FaceSettings, PruneSettings, BitSettings, Asked):
    """All settings of a run. They are validated here only.

    Settings stand in the order of the bases from right to left, then this class's own.
    """

    training: TrainSettings = TrainSettings()
    evaluation: EvalSettings = EvalSettings()

    benchmark: bool = Field(True, description="measure speed at the end", json_schema_extra=_RUN)
    report_faces: bool = Field(
        False, description="show faces of changed pairs in the report", json_schema_extra=_RUN
    )
    licence: str = Field(
        "",
        description="the teacher's licence note, stored in the student",
        json_schema_extra=_RUN,
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="threads of a process",
        json_schema_extra={**_RUN, "shown": "all cores"},
    )
    seed: int = Field(0, ge=0, description="of all random choices", json_schema_extra=_RUN)

    @field_validator("bits", mode="before")
    @classmethod
    def _bits(cls, value: Any) -> str:
        return FLOAT if value == FLOAT else str(told(Bits.parse, str(value)))

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {str(k): str(told(Bits.parse, str(bits))) for k, bits in value.items()}

    @field_validator("budget")
    @classmethod
    def _budget(cls, value: str | None) -> str | None:
        if value is not None:
            told(lambda text: parse_budget(text, 1.0), value)
        return value

    @field_validator("target")
    @classmethod
    def _target(cls, value: str | None) -> str | None:
        if value is not None:
            told(Target.parse, value)
        return value

    @field_validator("preprocess")
    @classmethod
    def _preprocess(cls, value: str | None) -> str | None:
        return None if value is None else told(check_preprocess, value)

    @field_validator("size", mode="before")
    @classmethod
    def _size(cls, value: Any) -> str | None:
        return None if value is None else told(check_size, str(value))

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        return told(check_device_name, value)

    @field_validator("prune", mode="before")
    @classmethod
    def _share_or_time(cls, value: Any) -> float | str | None:
        if value is None:
            return None
        goal = told(PruneGoal.parse, value)
        return str(value) if goal.share is None else goal.share

    @model_validator(mode="after")
    def _pruned_or_quantized(self) -> Recipe:
        if self.bits == FLOAT and self.prune is None:
            raise ValueError("bits float: nothing would be compressed; give prune, or bits")
        return self

    @model_validator(mode="after")
    def _one_who_chooses(self) -> Recipe:
        if self.target is None:
            return self
        given = [name for name in ("prune", "budget", "layers", "devices") if getattr(self, name)]
        if self.bits != "w8a8":
            given.insert(0, "bits")
        if given:
            raise ValueError(
                f"target {self.target}: a target chooses these itself, leave out {', '.join(given)}"
                + (" (train pinned.yaml on several devices)" if "devices" in given else "")
            )
        return self

    @classmethod
    def create(cls, values: dict[str, Any], where: str = "recipe") -> Recipe:
        """Make a recipe of ``values``.

        Args:
            values: by field; None means the default. With ``prune`` the defaults of ``bits`` and
                ``epochs`` are others.
            where: the source of the values, with which errors start.

        Raises:
            RecipeError: a value is wrong; the message names each wrong field and its value.
        """
        try:
            given = nested(values)
            if "prune" in given:
                training = given.get("training", {})
                if isinstance(training, dict):
                    given["training"] = {"epochs": PRUNED_EPOCHS, **training}
                if "bits" not in given and "budget" not in given:
                    given["bits"] = FLOAT  # pruned only
            return cls.model_validate(given)
        except ValidationError as error:
            if where == FLAGS:
                raise RecipeError("; ".join(sentences(error, cls, _flag))) from None
            raise RecipeError(f"{where}: " + "; ".join(sentences(error, cls))) from None
        except UnicodeEncodeError as error:  # half a surrogate pair, such as "\\ud800"
            raise RecipeError(f"{where}: {plain(str(error))}") from None

    @classmethod
    def read(cls, path: Path, overrides: dict[str, Any] | None = None) -> Recipe:
        """Read a YAML recipe.

        Args:
            path: of the file.
            overrides: values by field; those that are not None replace the file's.

        Raises:
            RecipeError: the file is missing, is not YAML, or holds wrong values.
        """
        try:
            values = parse_yaml(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecipeError(f"{path}: no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read ({error})") from None
        except ValueError as error:
            raise RecipeError(f"{path}: is not YAML ({error})") from None
        if not isinstance(values, dict):
            raise RecipeError(f"{path}: holds no recipe (a YAML mapping is expected)")
        base, given = nested(values), nested(overrides or {})
        for name in NESTED:
            part = base.get(name, {})
            given[name] = {**part, **given.get(name, {})} if isinstance(part, dict) else part
        return cls.create({**base, **given}, str(path))

    def to_yaml(self) -> str:
        """The recipe as YAML, with every default written out."""
        values = self.model_dump(mode="json")
        return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))

    @property
    def multiples(self) -> tuple[int, ...]:
        """Channels left are a multiple of the first of these that reaches the goal.

        Integer kernels are as slow at 24 channels as at 32. Where time decides, the first one counts.
        """
        if self.round_to is not None:
            return (self.round_to,)
        return (16, 8) if self.quantizes or self.prunes_by_time else (8,)

    @property
    def prunes_by_time(self) -> bool:
        """Whether channels and blocks are chosen by measured time."""
        if self.prune_by == "auto":
            return self.prune_goal is not None and self.prune_goal.ms is not None
        return self.prune is not None and self.prune_by == "time"

    @property
    def prune_goal(self) -> PruneGoal | None:
        """The goal of pruning; None without pruning."""
        return None if self.prune is None else PruneGoal.parse(self.prune)

    @property
    def quantizes(self) -> bool:
        """Whether the student is quantized, not only pruned."""
        return self.bits != FLOAT

    @property
    def crop_size(self) -> tuple[int, int] | None:
        """Height and width of crops; None if the recipe does not say them."""
        return None if self.size is None else parse_size(self.size)

    @property
    def scheme(self) -> Scheme:
        """The bits as a scheme; the recipe must not be ``float``."""
        bits = Bits.parse(self.bits)
        wide = self.wide_depthwise
        if wide is None:
            wide = bits.activation == 8 and self.budget is None
        return Scheme(
            bits,
            tuple((pattern, Bits.parse(bits)) for pattern, bits in self.layers.items()),
            self.wide_ends,
            wide,
            self.activations == "symmetric",
            self.full_range,
        )

    @property
    def reconstructs(self) -> bool:
        """Whether weights are reconstructed against the teacher.

        Without training, reconstruction helps at all bits. With activations below 8 bits it fits
        weights to inputs whose errors training will correct. Training then ends worse than from the
        nearest codes (docs/experiments/2026-11-27-rounding-before-training.md).
        """
        if not self.quantizes:
            return False
        wide = Bits.parse(self.bits).activation == 8
        return self.rounding == "reconstruct" or (
            self.rounding == "auto" and (wide or not self.training.epochs)
        )
