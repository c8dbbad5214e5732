"""Small messages, encoded with a dictionary that both nodes hold.

A message of a hundred bytes has nothing to refer back to, so a codec alone makes it larger. What
messages have in common (keys, their order, beginnings of paths) is in a trained dictionary.

Not for secrets beside what an attacker chooses: the size of what is encoded tells how alike the two
are. These messages hold file names, sizes and hashes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from novacron.dwcp.hde.dictionary import (
    KEY,
    Dictionary,
    read_dictionary,
    shipped_paths,
)
from novacron.dwcp.hde.errors import CodedMessageError, DictionaryError
from novacron.errors import NovaCronError

if TYPE_CHECKING:
    import zstandard

MARK: Final = 0xC1
"""First byte of an encoded message. The one byte that msgpack never begins with, nor holds."""
FORMAT: Final = 1
HEADER: Final = struct.Struct(">BBH")
"""Mark, format, id of the dictionary."""
FRAME_MAGIC: Final = b"\x28\xb5\x2f\xfd"
"""What a zstd frame begins with; the header stands in its place."""
MIN_BYTES: Final = 48
"""Shorter ones are not tried: a header and a frame's own take ten."""
MAX_BYTES: Final = 1024 * 1024
MAX_RATIO: Final = 1024
"""A message that would become smaller than this goes as it is. So nobody can make a node hold more
than this many bytes for one that was sent."""
LEVEL: Final = 6
"""5 % fewer bytes than 3 on the shipped samples, 6 us instead of 3 for a message; 9 gains nothing."""


class _Pair:
    """Contexts for one dictionary. Not for several threads at once."""

    def __init__(self, module: Any, dictionary: Dictionary) -> None:
        self.dictionary = dictionary
        data = module.ZstdCompressionDict(dictionary.content, dict_type=module.DICT_TYPE_FULLDICT)
        self.compressor: zstandard.ZstdCompressor = module.ZstdCompressor(
            level=LEVEL,
            dict_data=data,
            write_content_size=True,
            write_dict_id=False,
            write_checksum=False,
        )
        self.decompressor: zstandard.ZstdDecompressor = module.ZstdDecompressor(
            dict_data=data, max_window_size=MAX_BYTES
        )


class MessageCodec:
    """Encodes and decodes on one thread. Until :meth:`load` was called it holds no dictionary.

    Args:
      retrained: ``dwcp.hde.dictionary``, the file of an operator's dictionary.
    """

    def __init__(self, retrained: str | None = None) -> None:
        self.retrained = retrained
        self.faults: list[NovaCronError] = []
        """Why dictionaries that should be there are not."""
        self._pairs: dict[int, _Pair] = {}
        self._module: Any = None
        self.loaded = False
        """Whether all that can be used is held."""

    def load(self) -> None:
        """Read the dictionaries. Blocks on the disk, and imports zstandard, so call it in a thread;
        harmless when repeated. What cannot be used is done without; :attr:`faults` say why."""
        if not self.loaded:
            self._read()
            self.loaded = True

    def _read(self) -> None:
        try:
            import zstandard
        except ImportError as exc:
            self.faults.append(
                DictionaryError(
                    "messages are not encoded",
                    why=f"the package zstandard cannot be imported: {exc}",
                    remedy="install it beside novacron",
                )
            )
            return
        self._module = zstandard
        paths = [(path, "") for path in shipped_paths()]
        if self.retrained:
            paths.append((Path(self.retrained), KEY))
        for path, key in paths:
            try:
                self.add(read_dictionary(path, key=key))
            except DictionaryError as exc:
                self.faults.append(exc)

    def add(self, found: Dictionary) -> None:
        """Hold *found* as well. After :meth:`load`.

        Raises:
          DictionaryError: zstd does not take it, or zstandard is missing.
        """
        if self._module is None:
            raise DictionaryError("dictionaries cannot be used", why="zstandard is missing")
        try:
            self._pairs[found.id] = _Pair(self._module, found)
        except self._module.ZstdError as exc:
            raise DictionaryError(
                f"cannot use the dictionary {found.path} for messages", why=str(exc)
            ) from exc

    @property
    def library(self) -> str:
        """Version of zstd that messages are encoded with; empty where there is none."""
        if self._module is None:
            return ""
        return ".".join(map(str, self._module.ZSTD_VERSION))

    @property
    def dictionaries(self) -> Sequence[Dictionary]:
        return [pair.dictionary for pair in self._pairs.values()]

    def common(self, held: Mapping[int, bytes]) -> int:
        """The id of the best dictionary that is here and in *held* (id to SHA-256); 0 for none. Both
        ends come to the same one: an operator's before the package's, then the newest."""
        shared = [id for id, pair in self._pairs.items() if held.get(id) == pair.dictionary.digest]
        return max(shared, default=0)

    def encode(self, message: bytes, dictionary: int) -> bytes:
        """*message* as it goes to a node that holds *dictionary*; 0 for one that holds none. What
        would not become smaller goes as it is."""
        pair = self._pairs.get(dictionary)
        if pair is None or not MIN_BYTES <= len(message) <= MAX_BYTES:
            return message
        coded = HEADER.pack(MARK, FORMAT, dictionary) + pair.compressor.compress(message)[4:]
        if len(coded) >= len(message) or len(message) > MAX_RATIO * len(coded):
            return message
        return coded

    def decode(self, body: bytes) -> bytes:
        """The message of what another node sent; one that was not encoded is returned as it is.

        Raises:
          CodedMessageError: it is encoded, and not what it says it is; or with a dictionary that
            is not here. Nothing of the size it declares was allocated before that was checked.
        """
        if not is_encoded(body):
            return body
        if len(body) < HEADER.size:
            raise _bad(f"it ends after {len(body)} bytes, within its header")
        _, format, dictionary = HEADER.unpack_from(body)
        if format != FORMAT:
            raise _bad(f"its format is {format}, and this node reads {FORMAT}")
        pair = self._pairs.get(dictionary)
        if pair is None:
            raise _bad(f"this node holds no dictionary {dictionary}")
        frame = FRAME_MAGIC + body[HEADER.size :]
        try:
            declared = self._module.get_frame_parameters(frame)
        except self._module.ZstdError as exc:
            raise _bad(f"its frame has no header: {exc}") from exc
        size = declared.content_size
        if size == self._module.CONTENTSIZE_UNKNOWN:
            raise _bad("it does not say how large it is")
        if size > MAX_BYTES:
            raise _bad(f"it declares {size} bytes, and {MAX_BYTES} are the most")
        if size > MAX_RATIO * len(body):
            raise _bad(
                f"it declares {size} bytes in {len(body)}, more than {MAX_RATIO} times as many"
            )
        if declared.dict_id or declared.window_size > MAX_BYTES:
            raise _bad("it asks for another dictionary or for more memory than a message may")
        try:
            message = pair.decompressor.decompress(
                frame, max_output_size=size, allow_extra_data=False
            )
        except (self._module.ZstdError, ValueError) as exc:
            raise _bad(str(exc)) from exc
        if len(message) != size:
            raise _bad(f"it declares {size} bytes and has {len(message)}")
        return message


def is_encoded(body: bytes) -> bool:
    return body[:1] == b"\xc1"


def _bad(why: str) -> CodedMessageError:
    return CodedMessageError("a peer sent a badly encoded message", why=why)
