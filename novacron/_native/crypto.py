"""AES-256-GCM and HKDF-SHA256 of the machine's libcrypto, as the engine uses them.

The engine seals in C. This is for whoever has to know beforehand whether it can, for the keys of a
link, and for tests.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from novacron._native.ffi import Bytes, Native, NativeInvalidError, Pointer, exactly, native

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
HASH_BYTES = 32


def load(library: str | None = None) -> str:
    """Find libcrypto, hold it to known answers, and say which one it is ("OpenSSL 3.0.15 …").

    Args:
      library: File or soname instead of ``libcrypto.so.3`` or ``.1.1``; without effect once one was
        loaded.

    Raises:
      NativeUnavailableError: there is none here, or it lacks a function or computes wrongly. The next
        call tries again.
    """
    loaded = native()
    error = loaded.new_error()
    soname = loaded.ffi.NULL if library is None else library.encode()
    code = loaded.lib.nc_crypto_load(soname, error)
    loaded.check(code, error, "there is no usable libcrypto here")
    return loaded.text(loaded.lib.nc_crypto_version())


def hkdf_extract(salt: Bytes, material: Bytes) -> bytearray:
    """The 32 bytes that everything else is expanded from. The caller zeroises them.

    Raises:
      NativeError: no compiled module, or no libcrypto.
    """
    loaded = native()
    error = loaded.new_error()
    secret = bytearray(HASH_BYTES)
    with (
        loaded.ffi.from_buffer(salt) as from_salt,
        loaded.ffi.from_buffer(material) as from_material,
        loaded.ffi.from_buffer(secret) as into,
    ):
        code = loaded.lib.nc_hkdf_extract(
            from_salt, len(from_salt), from_material, len(from_material), into, error
        )
    loaded.check(code, error, "cannot derive a secret")
    return secret


def hkdf_expand(secret: Bytes, info: Bytes, size: int) -> bytearray:
    """*size* bytes (at most 8160) for the purpose *info* (at most 256 bytes) names.

    Raises:
      NativeInvalidError: one of the three has a size it cannot have.
      NativeError: no compiled module, or no libcrypto.
    """
    loaded = native()
    error = loaded.new_error()
    exactly(secret, HASH_BYTES, "a secret")
    key = bytearray(size)
    with (
        loaded.ffi.from_buffer(secret) as from_secret,
        loaded.ffi.from_buffer(info) as from_info,
        loaded.ffi.from_buffer(key) as into,
    ):
        code = loaded.lib.nc_hkdf_expand(from_secret, from_info, len(from_info), into, size, error)
    loaded.check(code, error, "cannot derive a key")
    return key


class Aead:
    """AES-256-GCM with one key in one direction; close it, or use it in a ``with``.

    Raises:
      NativeError: no compiled module, or no libcrypto.
    """

    def __init__(self, key: Bytes, iv: Bytes, *, seal: bool) -> None:
        loaded = native()
        error = loaded.new_error()
        handle = loaded.ffi.new("struct nc_aead **")
        exactly(key, KEY_BYTES, "a key")
        exactly(iv, NONCE_BYTES, "an iv")
        with loaded.ffi.from_buffer(key) as from_key, loaded.ffi.from_buffer(iv) as from_iv:
            code = loaded.lib.nc_aead_open(from_key, from_iv, int(seal), handle, error)
        loaded.check(code, error, "cannot open a cipher")
        self._native: Native = loaded
        self._aead: Pointer = handle[0]

    def close(self) -> None:
        """Zeroise the key. Harmless when repeated."""
        self._native.lib.nc_aead_close(self._aead)
        self._aead = self._native.ffi.NULL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def seal(self, sequence: int, aad: Bytes, data: Bytes) -> tuple[bytes, bytes]:
        """*data* encrypted, and the tag over it and *aad*. Never twice with one *sequence*.

        Raises:
          NativeInvalidError: opened for the other direction, closed, or over 2 GiB.
        """
        return self._run(self._native.lib.nc_aead_seal, sequence, aad, data, bytes(TAG_BYTES))

    def unseal(self, sequence: int, aad: Bytes, data: Bytes, tag: Bytes) -> bytes:
        """What was sealed.

        Raises:
          NativeIntegrityError: this is not what was sealed with that sequence and *aad*.
          NativeInvalidError: opened for the other direction, closed, or over 2 GiB.
        """
        exactly(tag, TAG_BYTES, "a tag")
        return self._run(self._native.lib.nc_aead_unseal, sequence, aad, data, tag)[0]

    def _run(
        self, function: Pointer, sequence: int, aad: Bytes, data: Bytes, tag: Bytes
    ) -> tuple[bytes, bytes]:
        if not self._aead:
            raise NativeInvalidError("the cipher is closed")
        ffi = self._native.ffi
        error = self._native.new_error()
        out = bytearray(len(data))
        tag = bytearray(tag)
        with (
            ffi.from_buffer(aad) as from_aad,
            ffi.from_buffer(data) as from_data,
            ffi.from_buffer(out) as into,
            ffi.from_buffer(tag) as tag_bytes,
        ):
            code = function(
                self._aead,
                sequence,
                from_aad,
                len(from_aad),
                from_data,
                len(from_data),
                into,
                tag_bytes,
                error,
            )
        self._native.check(code, error, f"cannot open or seal the frame of sequence {sequence}")
        return bytes(out), bytes(tag)
