"""Joins while the authority's key is replaced and after, and what a node makes of its files then."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.security import joining, roots
from novacron.security.certificates import Certificates
from novacron.security.errors import PeerRejectedError, RootsError
from novacron.security.inspection import load_certificates
from novacron.security.joining import Asked
from novacron.security.keyring import Keyring
from novacron.security.requests import make_request
from novacron.trust.authority_client import check_presented
from novacron.trust.errors import LivedNodeError, WrongAuthorityError
from novacron.trust.joining import _check_left, _granted
from tests.network.authority import node_id
from tests.security.issuing import der
from tests.security.stand_ins import NODE_ID, prepared
from tests.trust.authority_node import NOW, Node
from tests.trust.cluster import join_directory, new_key

OTHER = node_id(2)
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def holder(tmp_path: Path) -> Node:
    return Node(tmp_path / "holder")


def join(holder: Node, directory: DataDirectory, pin: str, **changes: Any) -> None:
    """As ``novacron join`` does it with a token of the authority *pin*; *changes* to the answer."""
    id, _ = holder.tokens.create_blocking("x", 600.0, OTHER)
    key, pem = new_key()
    authority = check_presented(holder.presented(), pin, "HOST", NOW)
    grant = holder.issuer.join(id, make_request(key, OTHER, ("localhost",)))
    answer = {**grant._asdict(), "revocations": "", "left_out": [], **changes}
    asked = Asked(OTHER, pin, pem, id)
    granted = _granted(asked, answer, authority, ("192.0.2.1", 7400), (), NOW)
    joining.write_granted(directory, granted)
    assert joining.finish(directory)


def opened(directory: DataDirectory, node: str = OTHER) -> Certificates:
    keyring = Keyring(directory)
    keyring.open()
    found = Certificates(directory, SecuritySettings(), keyring, ("localhost",), now=lambda: NOW)
    found.open(node)
    return found


@pytest.mark.parametrize("token", ["old", "new"])
def test_tokens_of_both_authorities_lead_into_the_cluster_until_the_old_one_is_forgotten(
    holder: Node, tmp_path: Path, token: str
) -> None:
    (old,) = holder.hashes
    holder.step("begin")
    holder.step("issue")
    new, _ = holder.hashes
    directory = prepared(tmp_path / "other")
    join(holder, directory, old if token == "old" else new)
    mine = opened(directory)
    assert mine.authority_hashes() == (new, old)
    assert mine.issuer() == new
    assert (directory.pki / "ca.pem").read_bytes() == holder.authority.path.read_bytes()
    assert mine.joined is not None
    assert mine.joined.due(mine.material) > NOW
    holder.step("finish")
    with pytest.raises(WrongAuthorityError, match="was replaced since the token was made"):
        join(holder, prepared(tmp_path / "late"), old)
    join(holder, prepared(tmp_path / "later"), new)


def test_a_list_of_authorities_that_the_tokens_has_not_signed_is_refused_at_the_join(
    holder: Node, tmp_path: Path
) -> None:
    stranger = Node(tmp_path / "stranger")
    stranger.step("begin")
    (old,) = holder.hashes
    holder.step("begin")
    directory = prepared(tmp_path / "other")
    foreign = stranger.authority.path.read_text()
    document = holder.authority.document()
    assert document is not None
    for lie in (foreign, document._replace(cluster="f" * 64).bundle().decode()):
        with pytest.raises(RootsError, match="has not signed"):
            join(holder, directory, old, authority=lie)
    assert not (directory.pki / "joined.json").exists()


def test_to_come_back_by_a_token_of_the_new_authority_is_not_to_leave_the_cluster(
    holder: Node, tmp_path: Path
) -> None:
    (old,) = holder.hashes
    directory = prepared(tmp_path / "other")
    join(holder, directory, old)
    for step in ("begin", "issue", "finish"):
        holder.step(step)
    (new,) = holder.hashes
    presented = [x509.load_der_x509_certificate(each) for each in holder.presented()]
    _check_left(directory, new, presented, False, NOW)
    stranger = Node(tmp_path / "stranger")
    theirs = [x509.load_der_x509_certificate(each) for each in stranger.presented()]
    for other in (theirs, [*theirs, *presented]):
        with pytest.raises(LivedNodeError, match="has joined already"):
            _check_left(directory, stranger.hashes[0], other, False, NOW)


def test_a_node_that_has_not_heard_yet_knows_the_new_authority_by_the_handover_alone(
    holder: Node, tmp_path: Path
) -> None:
    (old,) = holder.hashes
    directory = prepared(tmp_path / "other")
    join(holder, directory, old)
    mine = opened(directory)
    holder.step("begin")
    holder.step("issue")
    new, _ = holder.hashes
    leaf, *chain = holder.presented()
    with pytest.raises(PeerRejectedError, match="not signed by"):
        mine.identify(leaf)
    assert mine.identify(leaf, chain).authority == new
    assert mine.succeeded_by(new)
    # Neither another cluster's handover, nor a node that plays authority.
    stranger = Node(tmp_path / "stranger")
    stranger.step("begin")
    stranger.step("issue")
    leaf, *chain = stranger.presented()
    with pytest.raises(PeerRejectedError, match="not signed by"):
        mine.identify(leaf, [*chain, *holder.presented()])
    pem = (directory.pki / "node.pem").read_bytes()
    own = der(load_certificates(pem, "", "")[0])
    with pytest.raises(PeerRejectedError, match="not signed by"):
        mine.identify(leaf, [own])


@pytest.mark.parametrize("finished", [False, True])
def test_of_what_came_with_a_renewal_the_true_handover_alone_is_kept(
    holder: Node, tmp_path: Path, finished: bool
) -> None:
    directory = prepared(tmp_path / "other")
    join(holder, directory, holder.hashes[0])
    mine = opened(directory).joined
    assert mine is not None
    stranger = Node(tmp_path / "stranger")
    for step in ("begin", "issue"):
        holder.step(step)
        stranger.step(step)
    new = holder.hashes[0]
    # The successor's key, as the authority before would certify it, and by another's signature.
    forged = stranger.authority.handover(
        holder.authority.key_of(new).public_key(), NOW, 300.0, NOW + 86400.0
    )
    key, pem = new_key()
    assert mine.install_roots(holder.authority.path.read_bytes())
    if finished:
        holder.step("finish")
        assert mine.install_roots(holder.authority.path.read_bytes())
    grant = holder.issuer.renew(OTHER, "0", make_request(key, OTHER, ("localhost",)))
    leaf, true = (
        each.public_bytes(Encoding.PEM)
        for each in load_certificates(grant.certificate.encode(), "", "")
    )
    document = stranger.authority.document()
    assert document is not None
    for handover in (forged.encode(), document.handover.encode(), b"text\n" + leaf):
        mine.install(pem.encode(), leaf + handover + true)
        assert (directory.pki / "node.pem").read_bytes() == pem.encode() + leaf + true
    assert opened(directory).issuer() == new


def test_a_renewed_certificate_of_a_listed_authority_goes_out_as_a_newer_list(
    holder: Node, tmp_path: Path
) -> None:
    directory = prepared(tmp_path / "other")
    join(holder, directory, holder.hashes[0])
    mine = opened(directory)
    assert mine.joined is not None
    holder.step("begin")
    assert mine.joined.install_roots(holder.authority.path.read_bytes())
    before = holder.authority.certificates()
    data = holder.authority.ensure(holder.own.node_id, NOW, 36500 * 86400.0, 300.0)
    after = holder.authority.certificates()
    assert after[0].public_key() == before[0].public_key()
    assert (after[0] != before[0], after[1]) == (True, before[1])
    document = roots.read(data)
    assert document is not None
    assert document.number == 2
    assert mine.joined.install_roots(data)
    assert not mine.joined.install_roots(data)
    # What told a node of a renewed certificate before there was a list tells it nothing now.
    assert not mine.joined.install_authority(data)


def test_a_boot_by_a_list_of_authorities_needs_no_cryptography(tmp_path: Path) -> None:
    holder = Node(tmp_path / "holder", NODE_ID, time.time)
    id, _ = holder.tokens.create_blocking("x", 600.0, None)
    joined = prepared(tmp_path / "joined")
    holder.step("begin")
    holder.step("issue")
    join_directory(joined, holder.issuer, id, OTHER)
    holder.step("finish")
    holder.own.material()
    Certificates(joined, SecuritySettings(), Keyring(joined), ("localhost",)).open(OTHER)
    program = (
        "import sys; from pathlib import Path; from novacron.config.schema import SecuritySettings;"
        " from novacron.data_directory import DataDirectory;"
        " from novacron.security.certificates import Certificates;"
        " from novacron.security.keyring import Keyring;"
        " directory = DataDirectory(Path(sys.argv[1]));"
        " mine = Certificates(directory, SecuritySettings(), Keyring(directory), ('localhost',));"
        " mine.open(sys.argv[2]);"
        " print(mine.material.roots_number, 'cryptography' in sys.modules)"
    )
    for root, node, number in (
        (holder.directory.root, NODE_ID, 3),
        (joined.root, OTHER, 2),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, str(root), node],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.split() == [str(number), "False"]
