"""What a token can be narrowed to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.security.errors import TokenInvalidError
from novacron.security.resources import (
    EVERYTHING,
    MOST_PATTERNS,
    check_patterns,
    directory,
    is_narrowed,
    matches,
)


def test_patterns_are_kept_sorted_once_and_by_their_plain_path() -> None:
    assert check_patterns(
        ["tenant:b", "directory:/srv//images/", "tenant:a*", "directory:/srv/images", "tenant:b"]
    ) == ("directory:/srv/images", "tenant:a*", "tenant:b")


def test_everything_beside_something_is_everything() -> None:
    assert check_patterns(["tenant:a", "*"]) == EVERYTHING
    assert not is_narrowed(EVERYTHING)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("acme", "no kind of resource"),
        ("tenant:", "no name of a tenant"),
        ("tenant:a b", "no name of a tenant"),
        ("tenant:a*b", "no name of a tenant"),
        ("directory:srv", "not absolute"),
        ("directory:/srv/../etc", "goes up"),
        ("directory:/srv\n", "printable"),
        ("directory:/" + "a" * 600, "512"),
        ("vm:1", "no kind of resource"),
        ("", "no kind of resource"),
    ],
)
def test_what_names_nothing_is_refused_with_the_reason(pattern: str, why: str) -> None:
    with pytest.raises(TokenInvalidError, match=why) as caught:
        check_patterns([pattern])
    assert caught.value.remedy


def test_a_token_is_narrowed_to_something_and_not_to_too_much() -> None:
    with pytest.raises(TokenInvalidError, match="nothing"):
        check_patterns([])
    with pytest.raises(TokenInvalidError, match=f"{MOST_PATTERNS} at most"):
        check_patterns(f"tenant:{number}" for number in range(MOST_PATTERNS + 1))


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/srv/images", True),
        ("/srv/images/", True),
        ("/srv//images/./a", True),
        ("//srv/images/a", True),
        ("/srv/images/../secret", False),
        ("/srv/images/a/../../../etc/shadow", False),
        ("/srv/images-2/a", False),
        ("/", False),
    ],
)
def test_a_path_is_inside_by_where_it_leads_not_by_how_it_begins(path: str, inside: bool) -> None:
    (pattern,) = check_patterns(["directory:/srv/images"])
    assert matches(pattern, directory(path)) is inside


def test_the_root_is_every_directory() -> None:
    (pattern,) = check_patterns(["directory:/"])
    assert matches(pattern, directory("/etc/hosts"))


@pytest.mark.parametrize(
    ("pattern", "resource", "expected"),
    [
        ("directory:/srv/im*", "directory:/srv/images/a", True),
        ("directory:/srv/*", "directory:/srv/a", True),
        ("directory:/srv/*", "directory:/srv", False),
        ("directory:/*", "directory:/etc", True),
        ("tenant:*", "directory:/tenant:x", False),
    ],
)
def test_a_star_names_what_begins_so(pattern: str, resource: str, expected: bool) -> None:
    (kept,) = check_patterns([pattern])
    assert matches(kept, resource) is expected


@given(st.lists(st.text(max_size=40), max_size=4))
def test_whatever_is_kept_is_kept_the_same_again(patterns: list[str]) -> None:
    try:
        kept = check_patterns(patterns)
    except TokenInvalidError:
        return
    assert check_patterns(kept) == kept
