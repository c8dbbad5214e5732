"""Kills each step of a rotation of the authority's key before each of its writes, and looks what is
left. A process of its own, without threads, so that it can fork; run by test_rotation_steps.py with a
step and a directory."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from novacron.security import roots
from novacron.security.holdings import Holding
from novacron.security.inspection import issued_by, key_hash, load_certificates
from novacron.security.revocations import check_list
from tests.security.rotation_killer import in_a_child
from tests.security.stand_ins import prepared
from tests.trust.authority_node import NOW, Node
from tests.trust.cluster import join_directory, node_id, request_for

OTHER = node_id(2)
BEFORE = {"begin": (), "issue": ("begin",), "finish": ("begin", "issue"), "abort": ("begin",)}
STAGES = {"begin": "begun", "issue": "issuing", "finish": "none", "abort": "none"}


def check(root: Path, trusted: bytes, known: int) -> None:
    """Whatever has happened, a node that trusts what was *trusted* before believes what is there, and
    the authority goes on issuing and revoking."""
    node = Node(root)
    data = node.authority.path.read_bytes()
    document = roots.read(data)
    if document is not None and document.number > known:
        roots.check(data, load_certificates(trusted, "before", ""), NOW)
    material = node.own.material()
    assert material.issuer == material.authorities[0]
    _, secret = node.tokens.create_blocking("x", 600.0, None)
    grant = node.issuer.join(secret.split("_")[1], request_for(node_id(3)))
    chain = load_certificates(grant.certificate.encode(), "it", "")
    assert issued_by(chain[0], load_certificates(trusted, "before", ""), chain[1:], NOW)
    assert node.revocations.current.number >= 1
    check_list(node.revocations.current.pem, node.authority.certificates())


def main(name: str, base: Path) -> int:
    first = base / "first"
    node = Node(first)
    _, secret = node.tokens.create_blocking("x", 600.0, None)
    join_directory(prepared(base / "other"), node.issuer, secret.split("_")[1], OTHER)
    node.issuer.revoke(OTHER)
    for before in BEFORE[name]:
        node.step(before)
    node.rotation.holdings.note(node_id(4), Holding(1, "nobody", NOW), "nobody")
    trusted = node.authority.path.read_bytes()
    document = node.authority.document()
    known = document.number if document is not None else 0
    steps = 0
    while True:
        root = base / f"step-{steps}"
        shutil.copytree(first, root)

        def work(root: Path = root) -> None:
            Node(root).step(name)

        # A process that is killed, unlike a machine, loses nothing that it has written: the other
        # writes leave what these two have.
        ended = in_a_child(steps, work, ("rename", "unlink"))
        copy = base / f"looked-at-{steps}"
        shutil.copytree(root, copy)
        check(copy, trusted, known)
        # The same command goes on, however far it came.
        node = Node(root)
        if name != "finish" or node.rotation.progress().stage != "none":
            node.step(name)
        progress = node.rotation.progress()
        assert progress.stage == STAGES[name], progress
        present = node.authority.document()
        assert present is not None
        assert present.number == known + 1
        left = [path.name for path in node.directory.pki.glob("ca-*.key")]
        assert len(left) == (name in ("begin", "issue")), left
        assert node.rotation.holdings.path.exists() == (name == "issue")
        # The key that is left is the issuing authority's.
        node.authority.key_of(key_hash(node.authority.certificate().public_key()))
        if name in ("finish", "abort"):
            assert len(progress.new) == 0
            key = node.authority.open_key(node.authority.key_path)
            assert key_hash(key.public_key()) == progress.old
        if ended:
            check(root, trusted, known)
            break
        steps += 1
    print(json.dumps({"steps": steps}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
