"""Rules between keys: each names the key that was set, not one that was left alone."""

from __future__ import annotations

from typing import Any

import pytest

from novacron.config import ConfigInvalidError, load

BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"security.renew_before_days": 90}, "security.renew_before_days", "which is always"),
    ({"security.certificate_days": 30}, "security.certificate_days", "which is always"),
    ({"security.certificate": "c.pem"}, "security.certificate", "are not set"),
    (
        {"security.certificate": "c.pem", "security.ca_certificate": "ca.pem"},
        "security.ca_certificate",
        "security.private_key is not set",
    ),
    ({"boot.deadlines.core": 31}, "boot.deadlines.core", "longer than the whole boot"),
    ({"boot.deadlines.total": 15}, "boot.deadlines.total", "longer than the whole boot"),
    ({"boot.retry.delay": 31}, "boot.retry.delay", "longer than the longest"),
    ({"boot.retry.max_delay": 0.5}, "boot.retry.max_delay", "longer than the longest"),
    ({"boot.health.deep_interval": 5}, "boot.health.deep_interval", "more often than shallow"),
    ({"resources.min_disk_bytes": 1}, "resources.min_disk_bytes", "in all"),
    ({"network.ping_interval": 60}, "network.ping_interval", "before its next ping"),
    ({"network.idle_timeout": 5}, "network.idle_timeout", "before its next ping"),
    ({"network.max_connections": 8}, "network.max_connections", "all together"),
    ({"network.seeds": ("node-2",)}, "network.seeds", "'node-2' is not host:port"),
    ({"network.seeds": ("node-2:7401", "http://n:1")}, "network.seeds", "'http://n:1' is not"),
    ({"network.advertise_address": "2001:db8::2"}, "network.advertise_address", "is not host:port"),
    ({"network.advertise_address": "n:65536"}, "network.advertise_address", "is not host:port"),
    ({"api.listen_address": "0.0.0.0:7400"}, "api.listen_address", "an address and a port"),
    ({"monitoring.listen_address": "[::]:7402"}, "monitoring.listen_address", "and a port"),
    ({"api.port": 7401}, "api.port", "both 7401"),
    ({"monitoring.port": 7400}, "monitoring.port", "both 7400"),
    ({"network.listen_address": "0.0.0.0", "network.port": 7402}, "network.port", "both 7402"),
    ({"dwcp.amst.port": 7401}, "dwcp.amst.port", "both 7401"),
    (
        {"dwcp.amst.listen_address": "::", "monitoring.port": 7403},
        "monitoring.port",
        "dwcp.amst.port and monitoring.port are both 7403",
    ),
    ({"dwcp.amst.listen_address": "192.0.2.1:7403"}, "dwcp.amst.listen_address", "and a port"),
    ({"dwcp.amst.encryption": "off"}, "dwcp.amst.encryption", "mode auto in the clear"),
    (
        {"dwcp.amst.encryption": "off", "dwcp.mode": "internet"},
        "dwcp.amst.encryption",
        "mode internet in the clear",
    ),
    ({"dwcp.amst.directories": ("images",)}, "dwcp.amst.directories", "'images' is not an abs"),
    ({"dwcp.amst.directories": ("/srv/../etc",)}, "dwcp.amst.directories", "'/srv/../etc' is not"),
    ({"dwcp.amst.streams_min": 9, "dwcp.amst.streams_max": 8}, "dwcp.amst.streams_min", "the most"),
    ({"dwcp.amst.streams_start": 5, "dwcp.amst.streams_max": 4}, "dwcp.amst.streams_start", "1 to"),
    (
        {"dwcp.amst.window_bytes": 4 * 1024**2, "dwcp.amst.chunk_bytes": 2 * 1024**2},
        "dwcp.amst.window_bytes",
        "fewer than 4 chunks",
    ),
]


@pytest.mark.parametrize(("values", "key", "message"), BROKEN)
def test_a_broken_rule_is_reported_at_the_key_that_was_set(
    values: dict[str, Any], key: str, message: str
) -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load(overrides=values, environ={})
    problem = caught.value.problems[0]
    assert problem.key == key
    assert message in problem.message
    assert problem.accepted
    assert str(problem.source) == "--set"


def test_two_free_ports_and_two_addresses_do_not_clash() -> None:
    load(overrides={"api.port": 0, "monitoring.port": 0, "network.port": 0}, environ={})
    load(overrides={"api.listen_address": "192.0.2.1", "api.port": 7401}, environ={})


def test_addresses_of_every_kind_pass() -> None:
    values: dict[str, Any] = {
        "network.seeds": ("node-2:7401", "192.0.2.2:1", "[2001:db8::2]:65535"),
        "network.advertise_address": "node-1.example.org:7401",
        "network.listen_address": "::",
        "api.listen_address": "2001:db8::1",
    }
    assert len(load(overrides=values, environ={}).settings.network.seeds) == 3


def test_payload_in_the_clear_is_for_datacenters() -> None:
    values = {"dwcp.mode": "datacenter", "dwcp.amst.encryption": "off"}
    assert load(overrides=values, environ={}).settings.dwcp.amst.encryption == "off"


def test_the_data_listener_shares_a_port_number_with_another_address() -> None:
    values = {"dwcp.amst.listen_address": "192.0.2.1", "dwcp.amst.port": 7401}
    assert load(overrides=values, environ={}).settings.dwcp.amst.port == 7401


def test_a_chunk_is_a_multiple_of_a_page() -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load(overrides={"dwcp.amst.chunk_bytes": 100_000}, environ={})
    [problem] = caught.value.problems
    assert problem.key == "dwcp.amst.chunk_bytes"
    assert problem.accepted.endswith("a multiple of 4096")


def test_a_certificate_from_outside_needs_all_three() -> None:
    values = {
        "security.ca_certificate": "ca.pem",
        "security.certificate": "c.pem",
        "security.private_key": "file:key.pem",
    }
    assert load(overrides=values, environ={}).settings.security.certificate == "c.pem"


def test_a_profile_never_breaks_a_rule() -> None:
    for mode in ("datacenter", "internet", "hybrid"):
        assert load(overrides={"dwcp.mode": mode}, environ={}).settings.dwcp.mode == mode
