"""``novacron token``."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from novacron.security import Role
from tests.cli.booted import Booted


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Booted:
    return Booted(tmp_path / "node", capsys)


def test_a_token_made_here_is_taken_by_the_running_node_until_it_is_revoked(node: Booted) -> None:
    secret = node.run("token", "create", "grafana", "--role", "viewer").strip()
    principal = node.security.tokens.authenticate(secret)
    assert principal is not None
    assert principal.role is Role.VIEWER
    assert principal.name in node.run("token", "list")
    assert "not valid any more" in node.run("token", "revoke", principal.name)
    assert node.security.tokens.authenticate(secret) is None
    assert node.actions() == ["node.start", "token.create", "token.revoke"]


def test_json_is_one_document(node: Booted) -> None:
    made = node.json("token", "create", "ci", "--role", "operator", "--ttl", "12h")
    assert made["token"].startswith(f"nct_{made['id']}_")
    listed = node.json("token", "list")["tokens"]
    assert [entry["name"] for entry in listed] == ["first administrator", "ci"]
    assert listed[1]["expires"] is not None
    assert node.json("token", "revoke", made["id"]) == {"revoked": made["id"]}


def test_a_rotated_token_is_taken_with_both_its_secrets_by_the_running_node(
    node: Booted, tmp_path: Path
) -> None:
    made = node.json("token", "create", "ci", "--role", "operator")
    new = node.run("token", "rotate", made["id"], "--grace", "10m").strip()
    path = tmp_path / "newest"
    assert node.json(
        "token", "rotate", made["id"], "--grace", "0", "--ttl", "90d", "--output", str(path)
    ) == {"id": made["id"], "grace": 0.0}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    authenticate = node.security.tokens.authenticate
    assert authenticate(made["token"]) is not None
    assert authenticate(new) is None, "replaced without grace"
    assert authenticate(path.read_text().strip()) is not None
    listed = node.json("token", "list")["tokens"][-1]
    assert listed["former_until"] < listed["expires"]
    assert node.actions()[-2:] == ["token.rotate", "token.rotate"]


def test_a_rotation_that_cannot_be_written_down_does_not_happen(
    node: Booted, tmp_path: Path
) -> None:
    made = node.json("token", "create", "ci", "--role", "operator")
    taken = tmp_path / "taken"
    taken.write_text("mine")
    assert "cannot create" in node.run(
        "token", "rotate", made["id"], "--output", str(taken), fails=1
    )
    assert taken.read_text() == "mine"
    assert node.json("token", "list")["tokens"][-1]["former_until"] is None
    fresh = tmp_path / "fresh"
    assert "no token with this id" in node.run(
        "token", "rotate", "0123456789abcdef", "--output", str(fresh), fails=1
    )
    assert not fresh.exists()


def test_a_token_can_go_to_a_file_instead_of_the_terminal(node: Booted, tmp_path: Path) -> None:
    path = tmp_path / "token"
    shown = node.run("token", "create", "x", "--role", "admin", "--output", str(path))
    secret = path.read_text().strip()
    assert secret not in shown
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert node.security.tokens.authenticate(secret) is not None


def test_a_token_that_cannot_be_handed_over_is_not_left_valid(node: Booted, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("precious")
    output = str(tmp_path / "token")
    shown = node.run("token", "create", "x", "--role", "admin", "--output", output, fails=1)
    assert "File exists" in shown
    assert (tmp_path / "token").read_text() == "precious"
    assert [entry["state"] for entry in node.json("token", "list")["tokens"]] == [
        "active",
        "revoked",
    ]


def test_a_token_that_cannot_be_recorded_is_not_made(
    node: Booted, monkeypatch: pytest.MonkeyPatch
) -> None:
    from novacron.security.audit import AuditLog

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AuditLog, "_append", full)
    shown = node.run("token", "create", "x", "--role", "viewer", fails=1)
    assert "cannot write the audit log" in shown
    assert "the disk is full" in shown
    assert "nct_" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("token", "create", "x", "--role", "root"), "invalid choice"),
        (("token", "create", "x"), "--role"),
        (("token", "create", "x", "--role", "viewer", "--ttl", "soon"), "write 90s, 30m, 12h"),
        (("token",), "ACTION"),
    ],
)
def test_a_wrong_command_line_is_exit_2(
    node: Booted, arguments: tuple[str, ...], said: str
) -> None:
    assert said in node.run(*arguments, fails=2)


def test_an_unknown_id_is_an_error_that_says_what_to_do(node: Booted) -> None:
    shown = node.run("token", "revoke", "0123456789abcdef", fails=1)
    assert "there is no token with this id" in shown
    assert "novacron token list" in shown


def test_a_directory_without_a_node_is_said_to_be_that(tmp_path: Path, node: Booted) -> None:
    node.directory = type(node.directory)(tmp_path / "empty")
    shown = node.run("token", "list", fails=1)
    assert "no node has booted on this data directory" in shown
    assert "--data-dir" in shown
    assert not (tmp_path / "empty").exists()


def test_a_directory_of_another_user_is_not_written_to(
    node: Booted, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    owner = node.directory.secrets.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    shown = node.run("token", "create", "x", "--role", "viewer", fails=1)
    assert f"sudo -u '#{owner}' novacron" in shown
    assert node.run("token", "list")


def test_a_secret_that_finds_no_room_replaces_none(node: Booted, small_disk: Path) -> None:
    made = node.json("token", "create", "ci", "--role", "viewer")
    room = small_disk / "fill"
    with open(room, "wb") as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 65536)
            file.flush()
    output = str(small_disk / "new.token")
    for action in (("rotate", made["id"], "--grace", "0"), ("create", "other", "--role", "viewer")):
        said = node.run("token", *action, "--output", output, fails=1)
        assert f"cannot write to {output}" in said
        assert not (small_disk / "new.token").exists()
    assert node.security.tokens.authenticate(made["token"]) is not None
    assert "active" not in [
        entry["state"] for entry in node.json("token", "list")["tokens"] if entry["name"] == "other"
    ]
    room.unlink()
    node.run("token", "rotate", made["id"], "--output", output)
    text = (small_disk / "new.token").read_bytes()
    assert text.endswith(b"\n")
    assert node.security.tokens.authenticate(text.decode("ascii").rstrip("\n")) is not None
