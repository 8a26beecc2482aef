"""How weights and activations become codes: settings of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

_BITS: dict[str, JsonValue] = {"group": "Bits"}


class BitSettings(BaseModel):
    """Settings of quantization beside the bits. Flags and their groups come from the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: dict[str, str] = Field(
        {},
        description="PATTERN=w4a8: bits of layers by name (*, ?); may be repeated",
        json_schema_extra={**_BITS, "flag": "--layer-bits"},
    )
    wide_ends: bool = Field(
        False, description="first and last layer keep 8 bits", json_schema_extra=_BITS
    )
    wide_depthwise: bool | None = Field(
        None,
        description="weights of the first and of depthwise convolutions keep 8 bits: few, and dear to "
        "round",
        json_schema_extra={
            **_BITS,
            "shown": "where activations have 8 bits and no --budget chooses",
        },
    )
    activations: Literal["affine", "symmetric"] = Field(
        "affine",
        description="affine, or symmetric: signed codes with zero point 0, as efq export's formats "
        "tensorrt and ncnn and several NPUs need",
        json_schema_extra=_BITS,
    )
    full_range: bool = Field(
        False,
        description="8-bit weights use all codes. Only for fleets that are known to have VNNI: the file "
        "is wrong on x86 processors without VNNI",
        json_schema_extra=_BITS,
    )
    rounding: Literal["auto", "reconstruct", "nearest"] = Field(
        "auto",
        description="reconstruct: each layer's weights are fitted and rounded against the teacher's "
        "outputs; nearest: every weight gets its nearest code; auto: reconstruct, unless the student "
        "is trained with activations below 8 bits",
        json_schema_extra=_BITS,
    )
    calibration_images: int = Field(
        256, ge=8, description="images that ranges are searched on", json_schema_extra=_BITS
    )
