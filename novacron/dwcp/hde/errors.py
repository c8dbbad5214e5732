"""What goes wrong with the encoding of messages."""

from __future__ import annotations

from typing import ClassVar

from novacron.errors import DwcpError, InvalidError, RemoteProtocolError, UnavailableError


class CodedMessageError(DwcpError, RemoteProtocolError):
    """An encoded message is not what it says it is."""

    code: ClassVar[str] = "dwcp.coded_message"


class DictionaryError(DwcpError, UnavailableError):
    """A dictionary cannot be used; messages go without it."""

    code: ClassVar[str] = "dwcp.dictionary"


class TrainingError(DwcpError, InvalidError):
    """No dictionary can be made of these messages."""

    code: ClassVar[str] = "dwcp.training"
