"""What a call brings besides its caller: parameters and bodies, checked, and described for OpenAPI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from novacron.api.problems import InvalidRequestError
from novacron.component import JsonObject
from novacron.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

TOKEN_REQUEST = "TokenRequest"


class Parameter(Record):
    """A text in the path, or in the query where it has a default."""

    name: str
    pattern: str
    description: str
    default: str | None = None

    @property
    def place(self) -> str:
        return "path" if self.default is None else "query"

    def read(self, request: Request) -> str:
        """Its value in *request*.

        Raises:
          InvalidRequestError: it does not match the pattern.
        """
        value: str
        if self.default is None:
            value = request.path_params[self.name]
        else:
            value = request.query_params.get(self.name, self.default)
        if re.fullmatch(self.pattern, value) is None:
            raise InvalidRequestError(
                [(f"{self.place}.{self.name}", f"it does not match {self.pattern}")]
            )
        return value

    def described(self) -> JsonObject:
        """As a parameter object of OpenAPI."""
        schema: JsonObject = {"type": "string", "pattern": f"^({self.pattern})$"}
        if self.default is not None:
            schema["default"] = self.default
        return {
            "name": self.name,
            "in": self.place,
            "required": self.default is None,
            "description": self.description,
            "schema": schema,
        }


DEPTH = Parameter("depth", "shallow|deep|full", "How hard to look.", "shallow")
COMPONENT = Parameter("name", "[a-z][a-z0-9_]{0,63}", "The component's name.")
KEY = Parameter("key", "[^/\\s]{1,200}", "A configuration key, dotted: api.port.")
TOKEN_ID = Parameter("id", "[A-Za-z0-9_-]{1,64}", "The token's id; not the token.")
# The store behind it also takes paths and positions: neither matches.
BOOT_ID = Parameter(
    "boot_id",
    "[0-9a-f][0-9a-f-]{3,35}",
    "A boot's id, or the first four or more characters of one.",
)


class TokenRequest(BaseModel):
    """A token to make."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="What it is for; people read it.")
    role: str = Field(pattern="^(viewer|operator|admin)$", description="What it may do.")
    ttl: float | None = Field(
        None, gt=0, description="Seconds it is valid; null until it is revoked."
    )


def read_token_request(body: bytes) -> TokenRequest:
    """Raises:
    InvalidRequestError: *body* is not one; says where, without what stood there."""
    try:
        return TokenRequest.model_validate_json(body)
    except ValidationError as exc:
        # Without the input, which may hold a secret.
        raise InvalidRequestError(
            [
                (".".join(["body", *map(str, error["loc"])]), error["msg"])
                for error in exc.errors(
                    include_url=False, include_context=False, include_input=False
                )
            ]
        ) from None


SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    TOKEN_REQUEST: TokenRequest.model_json_schema,
}
"""Made when somebody asks for the OpenAPI document, not at boot."""
