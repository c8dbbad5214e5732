"""Secret references: what they lead to, and what is refused."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.log import redaction
from novacron.log.redaction import mask
from novacron.security.errors import SecretReferenceError
from novacron.security.references import (
    MOST_TOKENS,
    decode_master_key,
    read_secret,
    register_token,
)
from novacron.security.token_record import new_secret

KEY = "security.master_key"
SECRET = b"planted-secret-7f3a"


def secret_file(path: Path, mode: int = 0o600, content: bytes = SECRET) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_each_scheme_leads_to_its_secret(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "key")
    assert read_secret(f"file:{path}", key=KEY) == SECRET
    assert read_secret("env:THING", key=KEY, environ={"THING": SECRET.decode()}) == SECRET
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_secret("credential:key", key=KEY, environ=environ) == SECRET


def test_what_was_read_is_masked_from_then_on(tmp_path: Path) -> None:
    secret_file(tmp_path / "key", content=b"another-planted-one")
    read_secret(f"file:{tmp_path / 'key'}", key=KEY)
    assert "another-planted-one" not in mask("here it is: another-planted-one")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused_with_the_command_that_helps(
    tmp_path: Path, mode: int
) -> None:
    path = secret_file(tmp_path / "key", mode)
    with pytest.raises(SecretReferenceError) as caught:
        read_secret(f"file:{path}", key=KEY)
    assert f"chmod 600 {path}" in caught.value.remedy
    assert f"{mode:04o}" in caught.value.why
    assert caught.value.key == KEY
    assert SECRET.decode() not in str(caught.value)


def test_a_credential_may_show_a_group_bit_because_its_directory_protects_it(
    tmp_path: Path,
) -> None:
    secret_file(tmp_path / "key", 0o440)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_secret("credential:key", key=KEY, environ=environ) == SECRET


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("file:{root}/missing", "there is no such file"),
        ("file:{root}", "it is not a regular file"),
        ("env:MISSING", "the environment variable MISSING is not set"),
        ("env:EMPTY", "it is empty"),
        ("credential:../key", "a credential's name is a file name, without a slash"),
        (
            "credential:missing",
            "systemd passed no credential of this name (there is no {root}/missing)",
        ),
        ("planted-secret-7f3a", "its reference starts with none of file:, env:, credential:"),
    ],
)
def test_a_reference_that_leads_nowhere_says_why(tmp_path: Path, reference: str, why: str) -> None:
    environ = {"EMPTY": " \n", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    with pytest.raises(SecretReferenceError) as caught:
        read_secret(reference.format(root=tmp_path), key=KEY, environ=environ)
    assert caught.value.why == why.format(root=tmp_path)
    assert caught.value.remedy
    assert "planted" not in str(caught.value)


def test_without_systemd_a_credential_is_explained() -> None:
    with pytest.raises(SecretReferenceError) as caught:
        read_secret("credential:master", key=KEY, environ={})
    assert "CREDENTIALS_DIRECTORY is not set" in caught.value.why
    assert "LoadCredential=master:PATH" in caught.value.remedy


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "key", content=b"x" * 70_000)
    with pytest.raises(SecretReferenceError, match="larger than"):
        read_secret(f"file:{path}", key=KEY)


def test_a_named_pipe_does_not_hold_up_the_boot(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(SecretReferenceError, match="not a regular file"):
        read_secret(f"file:{tmp_path / 'pipe'}", key=KEY)


def test_a_master_key_of_the_wrong_length_or_alphabet_is_told_apart() -> None:
    with pytest.raises(SecretReferenceError, match="it has 16 bytes instead of 32"):
        decode_master_key(base64.b64encode(bytes(16)), "env:KEY")
    with pytest.raises(SecretReferenceError, match="it is not base64"):
        decode_master_key(b"!" * 44, "env:KEY")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_master_key_or_a_clear_error_without_them(data: bytes) -> None:
    try:
        key = decode_master_key(data, "env:KEY")
    except SecretReferenceError as exc:
        error = exc
    else:
        assert len(key) == 32
        return
    assert error.remedy
    if len(data.strip()) > 8:
        assert data.decode("latin-1").strip() not in str(error)


def test_a_node_that_makes_tokens_all_the_time_looks_for_the_latest_in_its_log() -> None:
    made = [new_secret(f"{number:016x}") for number in range(MOST_TOKENS + 20)]
    for secret in made:
        register_token(secret)
    register_token(made[-1])
    assert len(redaction._forms) < 10 * MOST_TOKENS
    latest = base64.b64encode(made[-1].encode()).decode()
    assert latest not in mask(f"basic {latest}")
    # The oldest too, as it is written.
    assert made[0] not in mask(f"Bearer {made[0]}")
