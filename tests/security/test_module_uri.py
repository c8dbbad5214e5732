"""``pkcs11:`` references: RFC 7512, and what of it is refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.security.errors import SecretReferenceError
from novacron.security.module_uri import KeyUri, parse

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
URIS = st.builds(
    KeyUri,
    token=st.none() | TEXT,
    manufacturer=st.none() | TEXT,
    serial=st.none() | TEXT,
    model=st.none() | TEXT,
    slot_id=st.none() | st.integers(0, 2**64 - 1),
    object=TEXT,
    id=st.none() | st.binary(min_size=1, max_size=32),
    module_path=st.none(),
    pin_source=st.none(),
)


@given(URIS)
def test_what_is_written_is_what_is_read(uri: KeyUri) -> None:
    if len(str(uri)) <= 2048:
        assert parse(str(uri)) == uri


@given(URIS, st.data())
def test_any_character_may_be_escaped_and_the_order_is_free(
    uri: KeyUri, data: st.DataObject
) -> None:
    parts = str(uri).removeprefix("pkcs11:").split(";")
    pairs = [part.split("=", 1) for part in data.draw(st.permutations(parts))]
    escaped = [
        name + "=" + (value if name == "slot-id" else _escaped(value)) for name, value in pairs
    ]
    text = "pkcs11:" + ";".join(escaped)
    if len(text) <= 2048:
        assert parse(text) == uri


def _escaped(value: str) -> str:
    out, rest = "", value
    while rest:
        if rest[0] == "%":
            out, rest = out + rest[:3].lower(), rest[3:]
        else:
            out, rest = out + f"%{ord(rest[0]):02x}", rest[1:]
    return out


@given(st.text(max_size=200) | st.text(max_size=200).map(lambda text: "pkcs11:" + text))
def test_any_text_is_a_key_or_a_clear_error_that_does_not_repeat_it(text: str) -> None:
    try:
        found = parse(text)
    except SecretReferenceError as exc:
        error = exc
    else:
        assert found.object or found.id
        return
    assert error.remedy
    assert error.key == "security.master_key"
    for value in (part.partition("=")[2] for part in text.replace("?", ";").split(";")):
        assert len(value) < 12 or value not in str(error)


def test_the_examples_of_the_rfc_that_name_a_secret_key_are_read() -> None:
    uri = "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;"
    uri += "serial=;object=my-key"
    with pytest.raises(SecretReferenceError, match="serial has no value"):
        parse(uri)
    found = parse(uri.replace("serial=;", "model=1.0;serial=1234;") + ";type=secret-key")
    assert found.token == "The Software PKCS#11 Softtoken"
    assert found.manufacturer == "Snake Oil, Inc."
    assert (found.model, found.serial, found.object) == ("1.0", "1234", "my-key")
    slot = parse("pkcs11:slot-id=327;object=a;id=%69%95%3E%5C%F4%BD%EC%91")
    assert slot.slot_id == 327
    assert slot.id == bytes.fromhex("69953e5cf4bdec91")


def test_module_and_pin_may_stand_in_the_query() -> None:
    found = parse(
        "pkcs11:token=b;object=k?module-path=/usr/lib/libb.so&pin-source=credential:pin-b"
    )
    assert (found.module_path, found.pin_source) == ("/usr/lib/libb.so", "credential:pin-b")
    assert str(found) == "pkcs11:token=b;object=k", "where it lies is not what it is"
    assert parse("pkcs11:object=k?pin-source=/etc/pin").pin_source == "file:/etc/pin"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pkcs11:", "it names no key"),
        ("pkcs11:token=a", "it names no key"),
        ("pkcs11:object=a;object=b", "object is there twice"),
        ("pkcs11:object=a;type=private", "its type is not secret-key"),
        ("pkcs11:object=a;library-version=3", "library-version is not understood here"),
        ("pkcs11:object=a;x-vendor=1", "one of its attributes is not understood here"),
        ("pkcs11:object=a b", "has to be written as %XX"),
        ("pkcs11:object=a%2", "has to be written as %XX"),
        ("pkcs11:object=%ff", "is not UTF-8 text"),
        ("pkcs11:object=a%00b", "is not UTF-8 text"),
        ("pkcs11:object=a;slot-id=-1", "slot-id is not a number"),
        ("pkcs11:object=a;slot-id=18446744073709551616", "slot-id is not a number"),
        ("pkcs11:object=a;", "not of the form name=value"),
        ("pkcs11:object", "not of the form name=value"),
        ("pkcs11:object=a?pin-value=1234-secret", "it holds a PIN"),
        ("pkcs11:pin-value=1234-secret;object=a", "it holds a PIN"),
        ("PKCS11:object=a", "it does not begin with pkcs11:"),
        ("pkcs11:object=" + "a" * 3000, "too long"),
    ],
)
def test_what_is_refused_says_why_and_shows_no_value(text: str, why: str) -> None:
    with pytest.raises(SecretReferenceError) as caught:
        parse(text)
    assert why in caught.value.why
    assert "1234-secret" not in str(caught.value)


def test_a_reference_that_is_right_needs_no_escapes_for_what_the_rfc_lets_stand() -> None:
    plain = "AZaz09-._~:[]@!$'()*+,=&"
    assert parse("pkcs11:object=" + plain).object == plain
    assert quote(plain, safe=":[]@!$'()*+,=&~") == plain
