"""The one table of who may do what, and the decision."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.security import Principal, Role, Rule, decide
from novacron.security.policy import RULES
from novacron.security.resources import KINDS, is_narrowed, matches

# Join tokens are on no ladder either: one action is theirs, and theirs alone.
ROLES = st.sampled_from(list(Role))
ACTIONS = st.sampled_from(sorted(RULES))
WORDS = st.text("abc/-", min_size=1, max_size=6)
RESOURCES = st.builds("{}:{}".format, st.sampled_from(["tenant", "directory"]), WORDS)
NAMED = st.none() | st.lists(RESOURCES, max_size=3)
PATTERNS = st.one_of(RESOURCES, RESOURCES.map(lambda name: name + "*"), st.just("*"))


def caller(role: Role, *resources: str) -> Principal:
    return Principal("token", "0123456789abcdef", role, resources or ("*",))


@given(role=ROLES, action=st.text(max_size=12), resources=NAMED)
def test_what_is_in_no_table_is_denied(
    role: Role, action: str, resources: list[str] | None
) -> None:
    decision = decide(caller(role), action, resources, {"a.read": Rule(Role.VIEWER, node=True)})
    assert decision.allowed == (action == "a.read")


@given(role=ROLES, action=ACTIONS, resources=NAMED)
def test_a_role_may_what_its_rule_says_and_nothing_else(
    role: Role, action: str, resources: list[str] | None
) -> None:
    rule = RULES[action]
    ladder = [Role.VIEWER, Role.OPERATOR, Role.ADMIN]
    if role is Role.NODE:
        expected = rule.node
    elif Role.JOIN in (role, rule.role):
        expected = role is rule.role
    else:
        expected = rule.role is not None and ladder.index(role) >= ladder.index(rule.role)
    decision = decide(caller(role), action, resources)
    assert decision.allowed == expected
    assert decision.why
    assert decision.allowed or decision.remedy


@given(
    role=ROLES,
    action=ACTIONS,
    resources=NAMED,
    patterns=st.lists(PATTERNS, max_size=3),
)
def test_narrowing_never_gives_what_the_role_does_not(
    role: Role, action: str, resources: list[str] | None, patterns: list[str]
) -> None:
    narrowed = Principal("token", "0123456789abcdef", role, tuple(patterns))
    if decide(narrowed, action, resources).allowed:
        assert decide(caller(role), action, resources).allowed


@given(action=ACTIONS, resources=NAMED, patterns=st.lists(RESOURCES, min_size=1, max_size=3))
def test_a_narrowed_caller_touches_only_its_own(
    action: str, resources: list[str] | None, patterns: list[str]
) -> None:
    narrowed = Principal("token", "0123456789abcdef", Role.ADMIN, tuple(patterns))
    rule = RULES[action]
    if not decide(narrowed, action, resources).allowed:
        return
    if not rule.resources:
        assert not rule.changes
        assert rule.role is Role.VIEWER
    for resource in resources or ():
        kind = resource.partition(":")[0]
        if kind in rule.resources and is_narrowed(patterns, kind):
            assert any(matches(pattern, resource) for pattern in patterns)


@given(action=ACTIONS, pattern=RESOURCES)
def test_what_the_caller_names_and_the_call_does_not_is_denied(action: str, pattern: str) -> None:
    narrowed = Principal("token", "0123456789abcdef", Role.ADMIN, (pattern,))
    if RULES[action].resources:
        assert not decide(narrowed, action, []).allowed


def test_every_rule_speaks_of_resources_that_there_are() -> None:
    for rule in RULES.values():
        assert set(rule.resources) <= set(KINDS)


@pytest.mark.parametrize(
    ("pattern", "resource", "expected"),
    [
        ("*", "tenant:acme", True),
        ("tenant:acme", "tenant:acme", True),
        ("tenant:acme", "tenant:acme-2", False),
        ("tenant:acme", "tenant:", False),
        ("tenant:ac*", "tenant:acme", True),
        ("tenant:*", "tenant:acme", True),
        ("tenant:*", "directory:/acme", False),
        ("ten*", "tenant:acme", False),
        ("directory:/srv/images", "directory:/srv/images", True),
        ("directory:/srv/images", "directory:/srv/images/a/b.img", True),
        ("directory:/srv/images/", "directory:/srv/images/a", True),
        ("directory:/srv/images", "directory:/srv/images-secret", False),
    ],
)
def test_what_a_pattern_names(pattern: str, resource: str, expected: bool) -> None:
    assert matches(pattern, resource) is expected


def test_a_decision_says_which_rule_decided_and_what_to_do() -> None:
    decision = decide(caller(Role.VIEWER), "token.create")
    assert decision.why == "token.create is not allowed for the role viewer"
    assert decision.remedy == "use a token with the role admin"
    narrowed = decide(caller(Role.OPERATOR, "tenant:acme"), "transfer.start", ["tenant:other"])
    assert narrowed.remedy
    assert narrowed.why == "the caller is narrowed to tenant:acme, which tenant:other is not among"


def test_what_only_nodes_may_is_closed_to_administrators() -> None:
    for action, rule in RULES.items():
        if rule.role is None:
            assert rule.node
            assert not decide(caller(Role.ADMIN), action).allowed
