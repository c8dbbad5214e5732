"""What two nodes agree on, for every combination that matters, and the keys that come of it."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from typing import Any

import pytest

from novacron.dwcp.amst import negotiation
from novacron.dwcp.amst.errors import LinkRefusedError
from novacron.dwcp.amst.messages import pack, unpack
from novacron.dwcp.amst.negotiation import Abilities, Agreement, LinkAnswer, LinkAsk

BASE = Abilities(
    versions=(3, 1),
    encryption=True,
    mode="auto",
    max_streams=256,
    chunk_bytes=1 << 20,
    window_bytes=64 << 20,
)
ASKER = "00000000-0000-4000-8000-000000000001"
ANSWERER = "00000000-0000-4000-8000-000000000002"


def agree(
    asker: dict[str, Any], answerer: dict[str, Any]
) -> tuple[LinkAsk, LinkAnswer, Agreement, Agreement]:
    """Over the wire form, as in life."""
    asked = unpack(LinkAsk, pack(negotiation.ask(BASE._replace(**asker))))
    answered = negotiation.answer(asked, BASE._replace(**answerer), port=7403)
    answered = unpack(LinkAnswer, pack(answered))
    return (
        asked,
        answered,
        negotiation.agreed_by_asker(asked, answered),
        negotiation.agreed_by_answerer(asked, answered),
    )


def test_two_equal_nodes_agree_on_all_and_have_nothing_to_explain() -> None:
    asked, answered, here, there = agree({}, {})
    assert here == there
    assert here.link_id == asked.link
    assert (here.version, here.encryption, here.max_streams) == (3, True, 256)
    assert here.why == ""
    assert answered.port == 7403


@pytest.mark.parametrize(
    ("asker", "answerer", "version", "why"),
    [
        ((3, 1), (3, 1), 3, ""),
        ((3, 1), (1,), 1, "version 1: the answering node speaks no newer one"),
        ((1,), (3, 1), 1, "version 1: the asking node speaks no newer one"),
        ((1,), (1,), 1, ""),
        ((3,), (3, 1), 3, ""),
        ((4, 3), (3, 1), 3, "version 3: the answering node speaks no newer one"),
        ((3, 1), (4, 3), 3, "version 3: the asking node speaks no newer one"),
    ],
)
def test_the_best_version_that_both_speak(
    asker: tuple[int, ...], answerer: tuple[int, ...], version: int, why: str
) -> None:
    _, _, here, there = agree({"versions": asker}, {"versions": answerer})
    assert here.version == there.version == version
    assert here.why == there.why == why


@pytest.mark.parametrize(("asker", "answerer"), [((3,), (1,)), ((1,), (3,)), ((2,), (3, 1))])
def test_no_version_in_common_is_refused_with_both_lists(
    asker: tuple[int, ...], answerer: tuple[int, ...]
) -> None:
    with pytest.raises(LinkRefusedError, match="no version") as caught:
        agree({"versions": asker}, {"versions": answerer})
    assert str(asker[0]) in caught.value.why
    assert str(answerer[0]) in caught.value.why
    assert caught.value.key == "dwcp.amst.protocol"


MODES = ("auto", "datacenter", "internet", "hybrid")


@pytest.mark.parametrize(
    ("asks", "answers", "asker_mode", "answerer_mode"),
    list(itertools.product((True, False), (True, False), MODES, MODES)),
)
def test_encryption_is_off_only_where_both_say_so_in_datacenter_mode(
    asks: bool, answers: bool, asker_mode: str, answerer_mode: str
) -> None:
    _, _, here, there = agree(
        {"encryption": asks, "mode": asker_mode}, {"encryption": answers, "mode": answerer_mode}
    )
    both_off = not asks and not answers
    off = both_off and asker_mode == answerer_mode == "datacenter"
    assert here.encryption is there.encryption is not off
    wanted_off = not asks or not answers
    assert bool(here.why) == (wanted_off and not off)
    if asks and not answers:
        assert here.why == "encrypted: the asking node wants it"
    elif answers and not asks:
        assert here.why == "encrypted: the answering node wants it"
    elif both_off and not off:
        side = "asking" if asker_mode != "datacenter" else "answering"
        assert here.why == f"encrypted: the {side} node is not in datacenter mode"


@pytest.mark.parametrize(
    ("asker", "answerer", "movers", "why"),
    [
        (("rdma", "tcp"), ("rdma", "tcp"), ("rdma", "tcp"), ""),
        (("rdma", "tcp"), ("tcp",), ("tcp",), "no rdma: the answering node has none"),
        (("tcp",), ("rdma", "tcp"), ("tcp",), "no rdma: the asking node has none"),
        (("rdma",), ("tcp",), ("tcp",), "no rdma: the answering node has none"),
        (("pigeon", "tcp"), ("tcp",), ("tcp",), ""),
    ],
)
def test_movers_that_both_have_and_always_tcp(
    asker: tuple[str, ...], answerer: tuple[str, ...], movers: tuple[str, ...], why: str
) -> None:
    _, _, here, there = agree({"movers": asker}, {"movers": answerer})
    assert here.movers == there.movers == movers
    assert here.why == why


@pytest.mark.parametrize(
    ("asker", "answerer", "why"),
    [
        ({"max_streams": 8}, {}, "at most 8 streams: the asking node's limit"),
        ({}, {"max_streams": 8}, "at most 8 streams: the answering node's limit"),
        ({"chunk_bytes": 65536}, {}, "at most 65536 bytes a chunk: the asking node's limit"),
        ({}, {"chunk_bytes": 65536}, "at most 65536 bytes a chunk: the answering node's limit"),
    ],
)
def test_the_smaller_limit_stands_and_whose_it_is_is_said(
    asker: dict[str, int], answerer: dict[str, int], why: str
) -> None:
    _, _, here, there = agree(asker, answerer)
    assert here == there
    limits = {**asker, **answerer}
    assert here.max_streams == limits.get("max_streams", 256)
    assert here.chunk_bytes == limits.get("chunk_bytes", 1 << 20)
    assert here.why == why


def test_each_side_sends_into_the_window_of_the_other() -> None:
    _, _, here, there = agree({"window_bytes": 8 << 20}, {"window_bytes": 32 << 20})
    assert (here.send_window, here.receive_window) == (32 << 20, 8 << 20)
    assert (there.send_window, there.receive_window) == (8 << 20, 32 << 20)


def test_a_window_holds_a_chunk_at_least() -> None:
    asked = negotiation.ask(BASE._replace(window_bytes=65536))
    answered = negotiation.answer(asked, BASE._replace(window_bytes=65536), port=1)
    agreement = negotiation.agreed_by_asker(asked, answered)
    assert agreement.send_window == agreement.receive_window == 1 << 20


def test_no_codec_in_common_is_refused() -> None:
    with pytest.raises(LinkRefusedError, match="no codec"):
        agree({"codecs": ("raw",)}, {"codecs": ("other",)})


def test_all_reductions_together_fit_the_message() -> None:
    _, _, here, _ = agree(
        {"versions": (254, 1), "movers": ("rdma", "tcp"), "mode": "datacenter"},
        {
            "versions": (255, 1),
            "encryption": False,
            "max_streams": 1,
            "chunk_bytes": 65536,
        },
    )
    assert len(here.why.split("; ")) == 5


@pytest.mark.parametrize(
    ("asker", "change", "fault"),
    [
        ({}, {"version": 2}, "it chose version 2"),
        ({}, {"encryption": False}, "left the encryption out"),
        ({"encryption": False, "mode": "internet"}, {"encryption": False}, "left the encryption"),
        ({"max_streams": 4}, {"max_streams": 5}, "more than was asked for"),
        ({"chunk_bytes": 65536}, {"chunk_bytes": 65537}, "more than was asked for"),
        ({}, {"codecs": ["zstd"]}, "a codec that was not offered"),
        ({}, {"movers": ["rdma"]}, "a mover that was not offered"),
    ],
)
def test_an_answer_that_takes_what_was_not_offered_is_refused(
    asker: dict[str, Any], change: dict[str, Any], fault: str
) -> None:
    asked = negotiation.ask(BASE._replace(**asker))
    answered = negotiation.answer(asked, BASE, port=1)._replace(**change)
    with pytest.raises(LinkRefusedError, match="does not fit") as caught:
        negotiation.agreed_by_asker(asked, answered)
    assert fault in caught.value.why


# --- Keys ------------------------------------------------------------------------------------


def test_the_secret_is_hkdf_extract_of_both_randoms_salted_with_what_was_said() -> None:
    asked, answered, _, _ = agree({}, {})
    salt = hashlib.sha256(pack(asked) + pack(answered)).digest()
    expected = hmac.new(salt, asked.random + answered.random, hashlib.sha256).digest()
    assert negotiation.link_secret(asked, answered) == expected
    assert type(negotiation.link_secret(asked, answered)) is bytearray


def test_every_field_of_both_messages_has_its_part_in_the_secret() -> None:
    asked, answered, _, _ = agree({}, {})
    other_ask = {
        "versions": [3],
        "link": bytes(16),
        "random": bytes(32),
        "encryption": False,
        "mode": "hybrid",
        "max_streams": 1,
        "chunk_bytes": 65536,
        "window_bytes": 65536,
        "codecs": ["other"],
        "movers": ["rdma"],
        "congestion": "reno",
    }
    other_answer = {
        **{name: other_ask[name] for name in ("random", "encryption", "max_streams")},
        **{name: other_ask[name] for name in ("chunk_bytes", "window_bytes", "codecs", "movers")},
        "congestion": other_ask["congestion"],
        "version": 1,
        "port": 1,
        "why": "other",
    }
    assert other_ask.keys() == LinkAsk.checks.keys()
    assert other_answer.keys() == LinkAnswer.checks.keys()
    secrets = {bytes(negotiation.link_secret(asked, answered))}
    for name, value in other_ask.items():
        secrets.add(bytes(negotiation.link_secret(asked._replace(**{name: value}), answered)))
    for name, value in other_answer.items():
        secrets.add(bytes(negotiation.link_secret(asked, answered._replace(**{name: value}))))
    assert len(secrets) == 1 + len(other_ask) + len(other_answer)


def test_no_two_asks_or_answers_have_an_id_or_randoms_in_common() -> None:
    asks = [negotiation.ask(BASE) for _ in range(50)]
    answers = [negotiation.answer(asked, BASE, port=1) for asked in asks]
    assert len({asked.link for asked in asks}) == 50
    randoms = [asked.random for asked in asks] + [answered.random for answered in answers]
    assert len(set(randoms)) == 100


def test_the_context_tells_links_and_who_asked_apart() -> None:
    link, other = bytes(16), bytes(15) + b"\1"
    contexts = {
        negotiation.link_context(link, ASKER, ANSWERER),
        negotiation.link_context(link, ANSWERER, ASKER),
        negotiation.link_context(other, ASKER, ANSWERER),
        negotiation.link_context(link, ASKER + ANSWERER[:1], ANSWERER[1:]),
    }
    assert len(contexts) == 4
    assert {len(context) for context in contexts} == {32}


def test_a_wiped_secret_is_zero_in_place() -> None:
    secret = bytearray(b"secret")
    negotiation.wipe(secret)
    assert secret == bytes(6)
