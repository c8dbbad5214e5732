"""Keys, tokens and the audit log."""

from __future__ import annotations

import base64
import json

from tests.integration.failing_node import Cause, Scene


def key_open_to_others(scene: Scene) -> None:
    (scene.booted_before() / "secrets/master.key").chmod(0o644)


def key_too_short(scene: Scene) -> None:
    path = scene.booted_before() / "secrets/master.key"
    path.write_bytes(base64.b64encode(bytes(16)))


def key_no_base64(scene: Scene) -> None:
    path = scene.booted_before() / "secrets/master.key"
    path.write_text("correct horse battery staple")


def key_lost(scene: Scene) -> None:
    (scene.booted_before() / "secrets/master.key").unlink()


def key_wrong(scene: Scene) -> None:
    path = scene.booted_before() / "secrets/master.key"
    path.write_bytes(base64.b64encode(bytes(range(32))))


def secrets_lost(scene: Scene) -> None:
    """A backup that left out what is secret."""
    for path in (scene.booted_before() / "secrets").iterdir():
        path.unlink()


def keyring_damaged(scene: Scene) -> None:
    path = scene.booted_before() / "secrets/keyring.json"
    path.write_bytes(path.read_bytes()[:200])


def credential_missing(scene: Scene) -> None:
    scene.settings["security.master_key"] = "credential:novacron-key"


def credential_misnamed(scene: Scene) -> None:
    scene.settings["security.master_key"] = "credential:novacron-key"
    directory = scene.root / "credentials"
    directory.mkdir()
    scene.environment["CREDENTIALS_DIRECTORY"] = str(directory)


def variable_not_set(scene: Scene) -> None:
    scene.settings["security.master_key"] = "env:NODE_MASTER_KEY"


def secret_pasted(scene: Scene) -> None:
    scene.settings["security.master_key"] = "c2VjcmV0IHRoYXQgd2FzIHBhc3RlZCBpbnRvIGEgZmxhZw"


def tokens_damaged(scene: Scene) -> None:
    path = scene.booted_before() / "secrets/tokens.json"
    path.write_bytes(bytes(len(path.read_bytes())))


def audit_changed(scene: Scene) -> None:
    path = scene.booted_before() / "audit/audit-000000000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    record = json.loads(lines[-1])
    record["action"] = "node.nothing"
    path.write_bytes(b"".join(lines[:-1]) + json.dumps(record).encode() + b"\n")


def audit_cut(scene: Scene) -> None:
    path = scene.booted_before() / "audit/audit-000000000001.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))


CAUSES = (
    Cause(
        "others may read the master key",
        key_open_to_others,
        1,
        "refusing the secret file {data}/secrets/master.key",
        "its mode 0644 lets other users at it",
        "run `chmod 600 {data}/secrets/master.key`, and replace the secret if others may have",
        "security.master_key",
    ),
    Cause(
        "the master key is too short",
        key_too_short,
        1,
        "cannot use the master key from file:{data}/secrets/master.key",
        "it has 16 bytes instead of 32",
        "put back the key that was there; only for a node that has never booted, make one",
        "security.master_key",
    ),
    Cause(
        "the master key is a pass phrase",
        key_no_base64,
        1,
        "cannot use the master key from file:{data}/secrets/master.key",
        "it is not base64",
        "put back the key that was there",
        "security.master_key",
    ),
    Cause(
        "the master key is lost",
        key_lost,
        1,
        "cannot find the master key {data}/secrets/master.key",
        "the keyring is there, and nothing else opens it",
        "restore the file from a backup; see the runbook lost-master-key",
        "security.master_key",
    ),
    Cause(
        "the master key is another",
        key_wrong,
        1,
        "cannot open the keyring {data}/secrets/keyring.json",
        "file:{data}/secrets/master.key is not the master key it was made with",
        "put back the master key that was in use (a command beside a node wants its --config); see "
        "the runbook lost-master-key",
        "security.master_key",
    ),
    Cause(
        "all secrets are lost",
        secrets_lost,
        1,
        "cannot find the keyring {data}/secrets/keyring.json",
        "this node has encrypted data, and the keys to it are gone",
        "restore the file from a backup; see the runbook lost-master-key",
        "security.master_key",
    ),
    Cause(
        "the keyring is damaged",
        keyring_damaged,
        1,
        "cannot read the keyring {data}/secrets/keyring.json",
        "it is not JSON",
        "restore it from a backup; it was left as it is",
        "security.master_key",
    ),
    Cause(
        "systemd passes no credentials",
        credential_missing,
        1,
        "cannot read the secret credential:novacron-key",
        "systemd passed no credentials (CREDENTIALS_DIRECTORY is not set)",
        "add LoadCredential=novacron-key:PATH to the unit, or refer to a file",
        "security.master_key",
    ),
    Cause(
        "systemd passes another credential",
        credential_misnamed,
        1,
        "cannot read the secret credential:novacron-key",
        "systemd passed no credential of this name (there is no {root}/credentials/novacron-key)",
        "add LoadCredential=novacron-key:PATH to the unit, or correct the name",
        "security.master_key",
    ),
    Cause(
        "the variable of a secret is not set",
        variable_not_set,
        1,
        "cannot read the secret env:NODE_MASTER_KEY",
        "the environment variable NODE_MASTER_KEY is not set",
        "set it for the node's process, or refer to a file or a systemd credential",
        "security.master_key",
    ),
    Cause(
        "a secret pasted in the place of its reference",
        secret_pasted,
        78,
        "the configuration is invalid",
        "its value is not a reference (and is not shown, in case it is the secret itself); "
        "accepted: a reference: file:PATH, env:NAME, credential:NAME (systemd) or pkcs11:",
        "correct it",
        "security.master_key",
    ),
    Cause(
        "the API tokens are damaged",
        tokens_damaged,
        0,
        "The API tokens were damaged (it is empty) and lie in {data}/quarantine/tokens.json.",
        "none of them is valid any more",
        "A new administrator's token is in {data}/secrets/admin.token",
    ),
    Cause(
        "the audit log was changed",
        audit_changed,
        0,
        "The audit log was changed: the last line of audit-000000000001.jsonl is damaged",
        "It was left as it is and goes on in a new file",
        "run `novacron audit verify` and see the runbook audit-broken",
    ),
    Cause(
        "the audit log was cut",
        audit_cut,
        0,
        "The audit log was changed",
        "1 record is missing at the end of audit-000000000001.jsonl",
        "run `novacron audit verify` and see the runbook audit-broken",
    ),
)
