"""A cluster as it is set up: one node's authority, the others joined with tokens."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.joining_nodes import Machine
from tests.integration.node_process import DEADLINE, REPOSITORY, wait_until


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """The first is the authority's, and runs."""
    made = [Machine(tmp_path, name) for name in ("one", "two", "three")]
    made[0].run("pki", "init", "--name", "a test")
    made[0].start()
    try:
        yield made
    finally:
        for machine in made:
            machine.kill()


def test_two_machines_join_and_one_is_taken_out_again(machines: list[Machine]) -> None:
    one, two, three = machines
    shown = one.json("pki", "show")
    assert (shown["name"], shown["held"]) == ("a test", "by this node")
    joined = two.join(one)
    assert joined["authority"] == shown["authority"]
    assert joined["peer"] == one.peer
    assert joined["set_aside"] is False
    three.join(one, "--names", "three.example")
    two.start(one)
    # The third knows the second alone.
    three.start(two)
    wait_until(lambda: three.peers() == {two.id: "open"}, every=0.2)
    wait_until(lambda: two.peers() == {one.id: "open", three.id: "open"}, every=0.2)
    assert three.json("pki", "show")["held"] == "by another node"
    assert three.json("certificate", "show")["own_authority"] is False
    assert "three.example" in three.json("certificate", "show")["names"]
    states = {entry["node_id"]: entry["state"] for entry in one.json("token", "list")["tokens"][1:]}
    assert states == {two.id: "used", three.id: "used"}

    before = three.json("certificate", "show")["serial"]
    renewed = three.json("certificate", "renew")
    assert renewed["serial"] == three.json("certificate", "show")["serial"] != before

    shown = one.json("certificate", "list")["certificates"]
    assert [entry["node_id"] for entry in shown] == [two.id, three.id, three.id]
    revoked = one.json("certificate", "revoke", three.id[:8], "--reason", "key-compromise")
    assert set(revoked["revoked"]) == {before, renewed["serial"]}
    # The second heard of it from the first, and ends the session that it has.
    wait_until(lambda: two.peers() == {one.id: "open"}, every=0.2)
    assert two.process is not None
    two.process.wait_log("is not served any more")
    two.process.wait_log("a new list of revoked certificates is in use")
    actions = [record["action"] for record in one.json("audit", "show")["records"]]
    assert {"node.join", "trust.sign", "certificate.revoke"} <= set(actions)


def test_what_is_in_the_way_is_said_in_words(machines: list[Machine], tmp_path: Path) -> None:
    one, two, three = machines
    token = one.token()
    other = Machine(tmp_path, "other")
    other.run("pki", "init")
    foreign = other.token()
    # Another cluster's token; a token of nobody; one that was used; one that is revoked.
    said = two.run("join", one.rest, "--token", foreign, fails=1)
    assert "not the authority the token was made by" in said
    said = two.run("join", one.rest, "--token", token[:-8], fails=1)
    assert "not copied whole" in said
    said = two.run("join", one.rest, "--token", token)
    start = said.splitlines()[-1].removeprefix("Start it with: novacron boot ")
    assert sorted(shlex.split(start)) == sorted(two.command()[3:]), "the options of the join"
    said = three.run("join", one.rest, "--token", token, fails=1)
    assert f"used already, by node {two.id}" in said
    again = two.json("join", one.rest, "--token", one.token("--node-id", two.id))
    assert again["node_id"] == two.id
    said = three.run("join", one.rest, "--token", one.token("--node-id", two.id), fails=1)
    assert f"it is for node {two.id}" in said
    said = three.run("join", one.peer, "--token", one.token(), fails=1)
    assert "its peer listener" in said
    said = one.run("join", one.rest, "--token", one.token(), fails=1)
    assert "is in use" in said
    said = two.run("certificate", "renew", fails=1)
    assert "it does not run" in said
    said = two.run("token", "create", "--role", "node", fails=1)
    assert "pki init" in said
    said = two.run("certificate", "revoke", one.id, fails=1)
    assert "pki init" in said
    said = two.run("pki", "init", fails=1)
    assert "joined the authority of another node" in said
    # A node that has joined leaves for another cluster only with --force, and keeps what it had.
    other.settings["api.tls"] = "on"
    other.start()
    try:
        said = two.run("join", other.rest, "--token", foreign, fails=1)
        assert "has joined already" in said
        assert two.json("join", other.rest, "--token", foreign, "--force")["node_id"] == two.id
        aside = {path.name.partition(".2")[0] for path in (two.data / "quarantine").iterdir()}
        assert {"ca.pem", "node.pem", "joined.json"} <= aside
    finally:
        other.kill()


def test_of_two_machines_that_use_a_token_at_once_one_joins(machines: list[Machine]) -> None:
    one, two, three = machines
    token = one.token()
    running = [
        subprocess.Popen(
            machine.command("join", one.rest, "--token", token, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        for machine in (two, three)
    ]
    said = [process.communicate(timeout=DEADLINE) for process in running]
    assert sorted(process.returncode for process in running) == [0, 1]
    (refused,) = (err for _, err in said if err)
    assert "used already" in refused
    assert len(one.json("certificate", "list")["certificates"]) == 1


KILLED = textwrap.dedent("""
    import os, signal, sys

    left = int(sys.argv.pop(1))

    def hook(event, arguments):
        global left
        if event in ("os.rename", "os.remove", "os.mkdir", "socket.connect", "socket.sendmsg"):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(hook)
    from novacron.cli import main
    sys.exit(main(sys.argv[1:]))
""")


def test_a_join_that_is_killed_at_any_write_is_finished_by_the_same_command(
    machines: list[Machine], tmp_path: Path
) -> None:
    one = machines[0]
    step = 0
    while True:
        machine = Machine(tmp_path, f"killed-{step}")
        # One that has an authority of its own, so that there is something to set aside.
        machine.run("pki", "init")
        own = (machine.data / "pki" / "ca.key").read_bytes()
        token = one.token()
        arguments = machine.command("join", one.rest, "--token", token)[3:]
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(step), *arguments],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            timeout=DEADLINE,
        )
        assert killed.returncode in (0, -9), killed.stderr
        again = machine.json("join", one.rest, "--token", token)
        assert again["node_id"] == machine.id
        assert machine.json("certificate", "show")["problems"] == []
        kept = [path.read_bytes() for path in (machine.data / "quarantine").iterdir()]
        assert own in kept
        assert not (machine.data / "pki" / "joining.json").exists()
        if killed.returncode == 0:
            break
        step += 1
    assert step >= 8
    # Each machine has one certificate: what was cut short was not issued twice.
    issued = json.loads((one.data / "pki" / "issued.json").read_bytes())["issued"]
    assert len({entry["node_id"] for entry in issued}) == len(issued) == step + 1
