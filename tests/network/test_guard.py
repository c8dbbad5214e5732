"""Requests of peers are held to the table of rules, and changes are on record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from novacron.errors import NovaCronError
from novacron.network.errors import PeerForbiddenError
from novacron.network.guard import guarded
from novacron.security import Role, Rule
from novacron.security.errors import AuditUnavailableError
from novacron.security.policy import RULES
from tests.network.authority import Audit

SESSION = cast(
    Any, SimpleNamespace(node_id="b" * 8, stream=SimpleNamespace(peer_address="192.0.2.7:4711"))
)


class Handler:
    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def __call__(self, session: Any, body: bytes) -> bytes:
        self.asked.append(body)
        if body == b"fail":
            raise NovaCronError("it did not work")
        return body.upper()


@pytest.fixture
def handler() -> Handler:
    return Handler()


def guard(handler: Handler, audit: Audit) -> Any:
    return guarded("test.method", handler, cast(Any, audit))


def test_a_method_without_a_rule_cannot_be_registered(handler: Handler) -> None:
    with pytest.raises(ValueError, match=r"no rule says who may do test\.method"):
        guard(handler, Audit())


async def test_a_read_is_answered_and_not_recorded(
    handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "test.method", Rule(None, node=True))
    audit = Audit()
    assert await guard(handler, audit)(SESSION, b"hello") == b"HELLO"
    assert audit.records == []


async def test_a_denied_request_does_not_reach_its_handler_and_is_recorded(
    handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "test.method", Rule(Role.ADMIN))
    audit = Audit()
    with pytest.raises(PeerForbiddenError, match="not allowed for the role node"):
        await guard(handler, audit)(SESSION, b"hello")
    assert handler.asked == []
    (record,) = audit.records
    assert record["actor"] == f"node:{SESSION.node_id}"
    assert record["action"] == "test.method"
    assert record["outcome"] == "denied"
    assert record["source"] == "192.0.2.7:4711"


async def test_a_rule_that_went_away_denies(
    handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "test.method", Rule(None, node=True))
    answer = guard(handler, Audit())
    monkeypatch.delitem(RULES, "test.method")
    with pytest.raises(PeerForbiddenError):
        await answer(SESSION, b"hello")
    assert handler.asked == []


@pytest.mark.parametrize(("body", "ends"), [(b"hello", "success"), (b"fail", "failure")])
async def test_a_change_is_recorded_before_it_is_made_and_when_it_ended(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, body: bytes, ends: str
) -> None:
    monkeypatch.setitem(RULES, "test.method", Rule(None, node=True, changes=True))
    audit = Audit()
    answer = guard(handler, audit)
    if ends == "success":
        await answer(SESSION, body)
    else:
        with pytest.raises(NovaCronError):
            await answer(SESSION, body)
    assert [record["outcome"] for record in audit.records] == ["started", ends]


async def test_a_change_that_cannot_be_recorded_is_not_made(
    handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "test.method", Rule(None, node=True, changes=True))

    class Full(Audit):
        async def append(self, **record: Any) -> None:
            raise AuditUnavailableError("cannot write the audit log")

    with pytest.raises(AuditUnavailableError):
        await guard(handler, Full())(SESSION, b"hello")
    assert handler.asked == []


async def test_a_change_whose_session_ended_meanwhile_is_recorded_as_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(RULES, "test.method", Rule(None, node=True, changes=True))
    audit = Audit()

    async def wait(session: Any, body: bytes) -> bytes:
        scope.cancel()
        await trio.sleep_forever()
        raise AssertionError

    with trio.CancelScope() as scope:
        await guarded("test.method", wait, cast(Any, audit))(SESSION, b"")
    assert [record["outcome"] for record in audit.records] == ["started", "failure"]
