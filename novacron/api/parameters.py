"""What a call brings besides its caller: parameters and bodies, checked, and described for OpenAPI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from novacron.api.problems import InvalidRequestError
from novacron.component import JsonObject
from novacron.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

TOKEN_REQUEST = "TokenRequest"
ROTATION_REQUEST = "RotationRequest"
TRANSFER_REQUEST = "TransferRequest"
LIMIT_REQUEST = "LimitRequest"
JOIN_REQUEST = "JoinRequest"

_Body = TypeVar("_Body", bound=BaseModel)


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
NODE_ID = Parameter(
    "node_id", "[0-9a-f-]{0,36}", "The id of a node; empty for the newest anchor of each.", ""
)
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
    resources: list[str] = Field(
        ["*"],
        min_length=1,
        max_length=32,
        description="What it is narrowed to: tenant:NAME, directory:/PATH, with * at the end for all that begin so. Of each kind that is named it may touch nothing else; kinds that are not named are as the role gives them.",
    )
    scope: Literal["node", "cluster"] | None = Field(
        None,
        description="Who takes it: this node alone, or every node that shares its database. Null for cluster where there is such a database, else node.",
    )


class RotationRequest(BaseModel):
    """How a token is to get its new secret."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)

    grace: float = Field(
        3600.0,
        ge=0,
        le=30 * 86400,
        description="Seconds the old secret is still accepted; 0 for one that leaked.",
    )
    ttl: float | None = Field(
        None,
        gt=0,
        description="Seconds the token is valid from now on; null for as long as before.",
    )


TRANSFER_ID = Parameter(
    "id", "[0-9a-f]{4,32}", "A transfer's id, or the first four or more characters of one."
)
TRANSFER_STATE = Parameter(
    "state",
    "all|active|ended",
    "Which transfers: those under way, those that ended, or all.",
    "all",
)


class TransferRequest(BaseModel):
    """Files to send to another node, or to have it send here."""

    # defer_build: most nodes boot without anybody sending anything.
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)

    direction: Literal["send", "receive"] = Field(description="Away from this node, or to it.")
    node: str = Field(
        min_length=1,
        max_length=255,
        description="The other node: its id, the first characters of one, or host[:port].",
    )
    paths: list[str] = Field(
        min_length=1,
        max_length=1000,
        description="Files and directories to move, up to 1000: absolute on this node; on another also relative to the first of its dwcp.amst.directories.",
    )
    path: str = Field(
        description="Where to: absolute on this node; on another also relative to the first of its dwcp.amst.directories. With / at its end, or with several paths, a directory to put them in.",
    )
    recursive: bool = Field(False, description="Whether directories are moved with what they hold.")
    overwrite: bool = Field(False, description="Whether files that are there are replaced.")
    on_change: Literal["refuse", "restart"] = Field(
        "refuse", description="What to do about a file that changes while it is sent."
    )
    priority: Literal["urgent", "normal", "background"] = Field(
        "normal",
        description="Its share of a link beside others, by dwcp.acp.weights: 16, 4 or 1 unless set.",
    )
    limit_bps: int = Field(0, ge=0, lt=2**63, description="Bytes a second at most; 0 for no limit.")
    codec: str = Field(
        "",
        pattern=r"^(|auto|off|lz4|zstd(:-?[0-9]{1,2})?)$",
        description="How what is sent is encoded: auto, off, lz4, zstd or zstd:LEVEL (-7 to 19); empty for what dwcp.hde of this node says. With direction send only: the sender decides.",
    )
    deadline_seconds: float | None = Field(
        None,
        gt=0,
        le=366 * 86400,
        description="Seconds after which it has failed if it is not done; null for never.",
    )
    tenant: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Whose files these are: what the receiver has of another tenant is never made use of. Null for dwcp.hde.tenant.",
    )
    dedup: Literal["auto", "always", "never"] | None = Field(
        None,
        description="Whether the receiver looks for what it holds in other files. Null for dwcp.hde.dedup.",
    )


class LimitRequest(BaseModel):
    """A new limit for a transfer."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)

    limit_bps: int = Field(ge=0, lt=2**63, description="Bytes a second at most; 0 for no limit.")


class JoinRequest(BaseModel):
    """A node that wants to join."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)

    csr: str = Field(
        min_length=1,
        max_length=16384,
        description="A certificate request (PKCS #10, PEM) with the URI name urn:novacron:node:<id>, signed by the node's ECDSA key.",
    )


def read_body(model: type[_Body], body: bytes) -> _Body:
    """*body* as a *model*.

    Raises:
      InvalidRequestError: it is not one; says where, without what stood there.
    """
    try:
        return model.model_validate_json(body)
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
    ROTATION_REQUEST: RotationRequest.model_json_schema,
    TRANSFER_REQUEST: TransferRequest.model_json_schema,
    LIMIT_REQUEST: LimitRequest.model_json_schema,
    JOIN_REQUEST: JoinRequest.model_json_schema,
}
"""Made when somebody asks for the OpenAPI document, not at boot."""
