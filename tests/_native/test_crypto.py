from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from novacron._native import crypto
from novacron._native.ffi import NativeIntegrityError, NativeInvalidError
from tests.dwcp.amst import reference

KEY = st.binary(min_size=32, max_size=32)
IV = st.binary(min_size=12, max_size=12)
SEQUENCE = st.integers(0, 2**64 - 1)
DATA = st.binary(max_size=300)


def test_the_library_says_which_one_it_is() -> None:
    assert crypto.load().startswith("OpenSSL ")
    # Later calls keep what was loaded, whatever they name.
    assert crypto.load("libnonesuch.so.9") == crypto.load()


@pytest.mark.parametrize(
    ("library", "fault", "reason"),
    [
        ("libnonesuch.so.9", "", "libnonesuch.so.9"),
        ("fake", "cipher", "AES-256-GCM of Fake 1.0 computes wrongly"),
        ("fake", "tag", "AES-256-GCM of Fake 1.0 computes wrongly"),
        ("fake", "hash", "HMAC-SHA256 of Fake 1.0 computes wrongly"),
    ],
)
def test_a_library_that_is_missing_or_computes_wrongly_is_unavailable(
    library: str, fault: str, reason: str, fake_crypto: str
) -> None:
    # In a process of its own: in this one a library may have been loaded already.
    code = (
        "import sys; from novacron._native import crypto, ffi\n"
        "try: crypto.load(sys.argv[1])\n"
        "except ffi.NativeUnavailableError as exc: print(exc)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, fake_crypto if library == "fake" else library],
        env={**os.environ, "FAKE_CRYPTO": fault, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "there is no usable libcrypto here" in done.stdout
    assert reason in done.stdout


@given(KEY, IV, SEQUENCE, DATA, DATA)
def test_what_is_sealed_is_what_another_implementation_seals(
    key: bytes, iv: bytes, sequence: int, aad: bytes, data: bytes
) -> None:
    other = AESGCM(key)
    nonce = reference.nonce(iv, sequence)
    with crypto.Aead(key, iv, seal=True) as sealer, crypto.Aead(key, iv, seal=False) as opener:
        sealed, tag = sealer.seal(sequence, aad, data)
        assert sealed + tag == other.encrypt(nonce, data, aad)
        assert opener.unseal(sequence, aad, sealed, tag) == data


@given(KEY, IV, DATA, DATA, st.data())
def test_both_implementations_refuse_what_was_changed(
    key: bytes, iv: bytes, aad: bytes, data: bytes, choice: st.DataObject
) -> None:
    whole = bytearray(AESGCM(key).encrypt(reference.nonce(iv, 5), data, aad))
    bit = choice.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidTag):
        AESGCM(key).decrypt(reference.nonce(iv, 5), bytes(whole), aad)
    with (
        crypto.Aead(key, iv, seal=False) as opener,
        pytest.raises(NativeIntegrityError, match="sequence 5"),
    ):
        opener.unseal(5, aad, whole[:-16], whole[-16:])


@given(DATA, DATA, st.binary(max_size=256), st.integers(0, 8160))
def test_keys_are_derived_as_the_standard_library_derives_them(
    salt: bytes, material: bytes, info: bytes, size: int
) -> None:
    secret = crypto.hkdf_extract(salt, material)
    assert secret == reference.extract(salt, material)
    assert crypto.hkdf_expand(secret, info, size) == reference.expand(secret, info, size)


def test_what_has_another_size_is_refused() -> None:
    with pytest.raises(NativeInvalidError, match="a key has 32 bytes, not 31"):
        crypto.Aead(bytes(31), bytes(12), seal=True)
    with pytest.raises(NativeInvalidError, match="an iv has 12 bytes, not 16"):
        crypto.Aead(bytes(32), bytes(16), seal=True)
    with pytest.raises(NativeInvalidError, match="a secret has 32 bytes, not 0"):
        crypto.hkdf_expand(b"", b"", 1)
    with pytest.raises(NativeInvalidError, match="cannot derive a key"):
        crypto.hkdf_expand(bytes(32), bytes(257), 1)
    with pytest.raises(NativeInvalidError, match="cannot derive a key"):
        crypto.hkdf_expand(bytes(32), b"", 8161)


def test_a_cipher_works_in_one_direction_and_until_it_is_closed() -> None:
    with crypto.Aead(bytes(32), bytes(12), seal=True) as sealer:
        sealed, tag = sealer.seal(0, b"", b"x")
        with pytest.raises(NativeInvalidError, match="the other direction"):
            sealer.unseal(0, b"", sealed, tag)
    sealer.close()
    with pytest.raises(NativeInvalidError, match="closed"):
        sealer.seal(1, b"", b"x")
    with (
        crypto.Aead(bytes(32), bytes(12), seal=False) as opener,
        pytest.raises(NativeInvalidError, match="a tag has 16 bytes"),
    ):
        opener.unseal(0, b"", sealed, tag[:15])
