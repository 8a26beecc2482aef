"""What is removed, and how it is chosen: settings of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

_PRUNING: dict[str, JsonValue] = {"group": "Pruning"}


class PruneSettings(BaseModel):
    """Settings of pruning beside its goal. Flags and their groups come from the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    importance: Literal["taylor", "magnitude"] = Field(
        "taylor",
        description="importance of channels: taylor (by what the embedding loses) or magnitude (by the "
        "channels' weights only)",
        json_schema_extra=_PRUNING,
    )
    prune_by: Literal["auto", "macs", "time"] = Field(
        "auto",
        description="what is removed: channels with the least loss for each multiply-accumulate (macs, "
        "the same on every machine), or channels and residual blocks with the least loss for each ms "
        "measured on this machine (time); auto: macs for a share, time for a time",
        json_schema_extra=_PRUNING,
    )
    timings: str | None = Field(
        None,
        description="timings.json of another run: with its times the choice is the same on any machine",
        json_schema_extra=_PRUNING,
    )
    round_to: int | None = Field(
        None,
        ge=1,
        le=64,
        description="channels left are a multiple of it; kernels are faster then",
        json_schema_extra={
            **_PRUNING,
            "shown": "16; 8 for a float student, and where 16 cannot reach the share",
        },
    )
