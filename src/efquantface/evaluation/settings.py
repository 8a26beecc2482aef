"""The settings of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from efquantface.errors import RecipeError

if TYPE_CHECKING:  # reading a recipe imports nothing that evaluates
    from efquantface.evaluation.items import Options

_GROUP: dict[str, JsonValue] = {"group": "Evaluation"}


class EvalSettings(BaseModel):
    """The sets on which teacher and student are compared, and how: the recipe's ``evaluation:``.

    Flags and their groups in the help come from the fields.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    eval: tuple[str, ...] = Field(
        (),
        description="NAME=PATH or PATH: the published folder of LFW (with pairs.txt), CALFW, CPLFW, "
        "CFP, AgeDB, RFW or IJB; a .bin or a folder of them; pairs=FILE.csv (columns a, b, same); "
        "folder=DIR (all pairs of a folder of identities); a folder with gallery and probe; may be "
        "repeated",
    )
    flip: bool = Field(
        False, description="add the mirror image's embedding", json_schema_extra=_GROUP
    )
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="the threshold you deploy, a cosine: adds FAR and FRR there",
        json_schema_extra=_GROUP,
    )
    arcface: bool = Field(
        False,
        description="add the numbers that arcface_torch prints for pairs (turns --flip on)",
        json_schema_extra=_GROUP,
    )
    group_by: str | None = Field(
        None,
        description="CSV file with the columns name (of an identity or image) and group: adds the "
        "spread between groups",
        json_schema_extra=_GROUP,
    )
    templates: str = Field(
        "N1D1F1",
        description="how IJB's crops are pooled: N (keep lengths), D (weigh by detector), F (add "
        "the mirror image), each 0 or 1",
        json_schema_extra=_GROUP,
    )

    @field_validator("eval", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("templates")
    @classmethod
    def _templates(cls, value: str) -> str:
        from efquantface.evaluation.templates import TemplateFlags

        try:
            return str(TemplateFlags.parse(value))
        except RecipeError as error:
            raise ValueError(str(error)) from None

    def options(self) -> Options:
        """The same as :class:`~efquantface.evaluation.items.Options`, with the table of groups read.

        Raises:
            DataError: the table of groups cannot be used.
        """
        from efquantface.evaluation.groups import read_groups
        from efquantface.evaluation.items import Options
        from efquantface.evaluation.templates import TemplateFlags

        groups = read_groups(Path(self.group_by)) if self.group_by else {}
        flags = TemplateFlags.parse(self.templates)
        return Options(self.flip, self.threshold, self.arcface, groups, flags)
