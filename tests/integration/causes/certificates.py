"""Certificates from outside, and the clock they are judged by."""

from __future__ import annotations

import time
from datetime import timedelta

from novacron.security import documents
from tests.integration.failing_node import NODE_ID, Cause, Scene
from tests.security.issuing import DAY, OutsideAuthority, key_pem, pem, write_private


def _from_outside(
    scene: Scene,
    *,
    begins: timedelta = -DAY,
    ends: timedelta = 50 * DAY,
    node_id: str = NODE_ID,
) -> None:
    authority = OutsideAuthority()
    certificate, key = authority.issue([f"urn:novacron:node:{node_id}"], begins=begins, ends=ends)
    (scene.root / "ca.pem").write_bytes(pem(authority.certificate))
    (scene.root / "node.pem").write_bytes(pem(certificate))
    write_private(scene.root / "node.key", key_pem(key))
    scene.settings |= {
        "system.node_id": NODE_ID,
        "security.ca_certificate": str(scene.root / "ca.pem"),
        "security.certificate": str(scene.root / "node.pem"),
        "security.private_key": f"file:{scene.root}/node.key",
    }


def not_pem(scene: Scene) -> None:
    _from_outside(scene)
    path = scene.root / "node.pem"
    path.write_bytes(
        path.read_bytes().replace(b"BEGIN CERTIFICATE-----\nMII", b"BEGIN CERTIFICATE-----\n?!")
    )


def empty(scene: Scene) -> None:
    _from_outside(scene)
    (scene.root / "node.pem").write_bytes(b"")


def missing(scene: Scene) -> None:
    _from_outside(scene)
    (scene.root / "node.pem").unlink()


def expired(scene: Scene) -> None:
    _from_outside(scene, begins=-3 * DAY, ends=-DAY)


def not_yet_valid(scene: Scene) -> None:
    _from_outside(scene, begins=DAY)


def other_key(scene: Scene) -> None:
    _from_outside(scene)
    _, key = OutsideAuthority().issue([])
    write_private(scene.root / "node.key", key_pem(key))


def key_with_pass_phrase(scene: Scene) -> None:
    _from_outside(scene)
    _, key = OutsideAuthority().issue([])
    write_private(scene.root / "node.key", key_pem(key, b"open sesame"))


def other_authority(scene: Scene) -> None:
    _from_outside(scene)
    (scene.root / "ca.pem").write_bytes(pem(OutsideAuthority("another").certificate))


def other_node(scene: Scene) -> None:
    _from_outside(scene, node_id="11111111-2222-4333-8444-555555555555")


def incomplete(scene: Scene) -> None:
    _from_outside(scene)
    del scene.settings["security.private_key"]


def expires_soon(scene: Scene) -> None:
    _from_outside(scene, ends=3 * DAY)


def _seen(scene: Scene, ahead: float) -> None:
    """The node has seen a time that lies *ahead* seconds in the future of the clock now."""
    path = scene.data / "secrets/clock.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    body = {"version": 1, "newest": documents.to_text(time.time() + ahead)}
    path.write_bytes(documents.encode(body))


def clock_set_back(scene: Scene) -> None:
    scene.booted_before()
    _seen(scene, 7 * 86400.0)


def clock_set_back_before_the_certificate(scene: Scene) -> None:
    _from_outside(scene, begins=DAY)
    scene.data.mkdir(mode=0o700)
    _seen(scene, 7 * 86400.0)


def node_certificate_damaged(scene: Scene) -> None:
    path = scene.booted_before() / "pki/node.pem"
    path.write_bytes(path.read_bytes()[:300])


CAUSES = (
    Cause(
        "the certificate is not PEM",
        not_pem,
        1,
        "cannot read the certificate {root}/node.pem",
        "it is not valid PEM",
        "restore the file, or export the certificate again as PEM",
        "security.certificate",
    ),
    Cause(
        "the certificate is empty",
        empty,
        1,
        "cannot read the certificate {root}/node.pem",
        "the file is empty",
        "restore the file, or export the certificate again as PEM",
        "security.certificate",
    ),
    Cause(
        "the certificate is missing",
        missing,
        1,
        "cannot read the certificate {root}/node.pem",
        "No such file or directory",
        "correct the path",
        "security.certificate",
    ),
    Cause(
        "the certificate has expired",
        expired,
        1,
        "cannot use {root}/node.pem",
        "it expired at 20",
        "have it renewed by whoever issued it, or set the clock (timedatectl) if that is wrong; see "
        "the runbook expired-certificate",
        "security.certificate",
    ),
    Cause(
        "the certificate is not valid yet",
        not_yet_valid,
        1,
        "cannot use {root}/node.pem",
        ", and this machine's clock says 20",
        "set the clock (timedatectl), or replace the certificate if the clock is right; see the "
        "runbook clock-set-back",
        "security.certificate",
    ),
    Cause(
        "the key of another certificate",
        other_key,
        1,
        "cannot use {root}/node.pem",
        "the private key does not match the certificate",
        "use the key the certificate was requested with",
        "security.private_key",
    ),
    Cause(
        "a key with a pass phrase",
        key_with_pass_phrase,
        1,
        "cannot read the private key file:{root}/node.key",
        "it is protected by a pass phrase",
        "store it without one, with mode 0600",
        "security.private_key",
    ),
    Cause(
        "the certificate of another authority",
        other_authority,
        1,
        "cannot use {root}/node.pem",
        "it was not signed by the certificate authority this node trusts",
        "use certificate and authority that belong together",
        "security.ca_certificate",
    ),
    Cause(
        "the certificate of another node",
        other_node,
        1,
        "cannot use {root}/node.pem",
        "it names node 11111111-2222-4333-8444-555555555555, and this is node " + NODE_ID,
        "have one issued with the URI name urn:novacron:node:" + NODE_ID,
        "security.certificate",
    ),
    Cause(
        "a certificate without its key",
        incomplete,
        78,
        "the configuration is invalid",
        "security.private_key is not set; accepted: all of security.ca_certificate, "
        "security.certificate, security.private_key, or none",
        "correct it",
        "security.ca_certificate",
    ),
    Cause(
        "the certificate expires soon",
        expires_soon,
        0,
        "The certificate {root}/node.pem expires at 20",
        "",
        "replace the file, the node takes the new one without a restart",
    ),
    Cause(
        "the clock was set back",
        clock_set_back,
        0,
        "The clock was set back",
        "it is 7 days behind the newest time this node has seen",
        "set it with timedatectl, and see the runbook clock-set-back",
    ),
    Cause(
        "the clock was set back before the certificate",
        clock_set_back_before_the_certificate,
        1,
        "the clock was set back",
        "it is 7 days behind the newest time this node has seen, and certificates are not valid yet",
        "set the clock (timedatectl set-ntp true) and start the node again; see the runbook "
        "clock-set-back",
        "security.clock_tolerance",
    ),
    Cause(
        "the node's own certificate is damaged",
        node_certificate_damaged,
        0,
        "The node's certificate was damaged (it is not valid PEM)",
        "it lies in {data}/quarantine/node.pem.",
        "a new one was issued",
    ),
)
