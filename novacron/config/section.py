"""What the sections of the configuration are made of: units, marks, and their base class.

Annotations in this package's schema are objects and not strings, for cheapness: see
:mod:`novacron.config.schema`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

Seconds = Annotated[float, Field(gt=0, le=86400 * 366)]
Port = Annotated[int, Field(ge=0, le=65535)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[int, Field(ge=0)]

ComponentClass = Literal["critical", "degraded", "warning"]

RELOADABLE: JsonDict = {"reloadable": True}
"""Marks a key that SIGHUP applies to the running node; every other one needs a restart."""

REFERENCE: JsonDict = {
    "reference": True,
    "accepted": "a reference: file:PATH, env:NAME or credential:NAME (systemd)",
}
"""Marks a key that names where a secret is. An error never repeats its value: an operator who
pasted the secret itself must not find it in a log."""


class Section(BaseModel):
    """Unknown keys are errors; values are immutable; strings are not silently numbers."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        defer_build=True,
    )
