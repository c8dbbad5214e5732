"""What goes wrong with the index of blocks, where somebody asked for it. Transfers do without."""

from __future__ import annotations

from typing import ClassVar

from novacron.errors import DwcpError, UnavailableError


class BlockIndexError(DwcpError, UnavailableError):
    """The index of blocks cannot be read or changed."""

    code: ClassVar[str] = "dwcp.block_index"
