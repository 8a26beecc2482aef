"""Which faces a run takes, and what it checks of them: settings of a recipe."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue

_FACES: dict[str, JsonValue] = {"group": "Faces"}


class FaceSettings(BaseModel):
    """Settings of the faces beside their place. Flags and their groups come from the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_images: int = Field(
        14_000,
        ge=8,
        description="larger sets of faces are capped, spread over the identities",
        json_schema_extra=_FACES,
    )
    faces_gb: float = Field(
        4.0,
        ge=0,
        description="crops of up to this many GB are held in memory; larger sets stay in their files, "
        "and are decoded batch by batch",
        json_schema_extra=_FACES,
    )
    hold_out: float = Field(
        0.1, gt=0, lt=0.9, description="share of identities held out", json_schema_extra=_FACES
    )
    exclude: str | None = Field(
        None,
        description="list of images to leave out, from efq data check",
        json_schema_extra=_FACES,
    )
    resize: bool = Field(False, description="scale crops of another size", json_schema_extra=_FACES)
    follow_links: bool = Field(
        False,
        description="take items of a list file that are links to files outside their folder",
        json_schema_extra=_FACES,
    )
    check_alignment: bool = Field(
        True,
        description="compare the crops' landmarks with the template",
        json_schema_extra=_FACES,
    )
    anyway: bool = Field(
        False,
        description="go on if a check of the teacher fails",
        json_schema_extra=_FACES,
    )
    cache: bool = Field(
        True,
        description="keep the teacher's embeddings of the faces (biometric data) in the user cache",
        json_schema_extra=_FACES,
    )
