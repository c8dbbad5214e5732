"""The page of messages is what the code can print."""

from __future__ import annotations

from docs.generate.messages import PAGE, Message, messages, messages_in, rendered

SOURCE = """
LIMIT = 16
def listen(port, path, exc):
    why = f"pid {port.owner} holds it"
    if port:
        raise PortTakenError(
            f"cannot listen on {port}", why=why, remedy="stop it " "or set api.port", key="api.port"
        )
    raise OtherError(f"cannot read {path.parent}", why=exc.strerror or str(exc), remedy=f"{LIMIT}")
def unrelated(text):
    log(text, key="x")
    raise OtherError(text, remedy=text)
"""


def test_a_message_is_read_from_the_call_that_makes_it() -> None:
    assert messages_in(SOURCE, "api") == {
        Message(
            "api",
            "cannot listen on ‹port›",
            "pid ‹owner› holds it",
            "stop it or set api.port",
            "api.port",
        ),
        Message("api", "cannot read ‹directory of path›", "…", "16", ""),
    }


def test_the_page_lists_every_message() -> None:
    assert PAGE.read_text() == rendered(), "run: make docs"


def test_the_node_explains_more_failures_than_an_operator_wants_to_meet() -> None:
    assert len({message.what for message in messages()}) > 60


def test_every_message_says_what_to_do() -> None:
    assert not [message for message in messages() if not message.what or not message.remedy]
