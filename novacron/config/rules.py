"""Rules that concern more than one key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from novacron.config.errors import Problem
from novacron.config.layers import Layer
from novacron.config.provenance import DEFAULT, Path, Source
from novacron.config.schema import Settings

_WINDOW_CHUNKS = 4
"""Chunks a window must hold at least: with fewer, streams wait for each other's acknowledgements."""


def broken_rules(settings: Settings, merged: Layer) -> list[Problem]:
    """Every rule *settings* break, at the key that was set rather than at one left alone."""
    problems: list[Problem] = []

    def source(*names: str) -> tuple[str, Source]:
        paths: list[Path] = [tuple(name.split(".")) for name in names]
        for name, path in zip(names, paths, strict=True):
            if path in merged:
                return name, merged[path].source
        return names[0], DEFAULT

    def broken(names: tuple[str, ...], message: str, accepted: str) -> None:
        key, where = source(*names)
        problems.append(Problem(key, where, message, accepted))

    security = settings.security
    if security.renew_before_days >= security.certificate_days:
        broken(
            ("security.renew_before_days", "security.certificate_days"),
            f"a certificate valid for {security.certificate_days} days would be renewed "
            f"{security.renew_before_days} days before it ends, which is always",
            "security.renew_before_days less than security.certificate_days",
        )
    trio = {
        "security.ca_certificate": security.ca_certificate,
        "security.certificate": security.certificate,
        "security.private_key": security.private_key,
    }
    if any(trio.values()) and not all(trio.values()):
        missing = [name for name, value in trio.items() if not value]
        given = tuple(name for name, value in trio.items() if value)
        broken(
            given,
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set",
            "all of " + ", ".join(trio) + ", or none",
        )

    boot = settings.boot
    for phase in ("pre_init", "core", "services", "post_init"):
        if getattr(boot.deadlines, phase) > boot.deadlines.total:
            broken(
                (f"boot.deadlines.{phase}", "boot.deadlines.total"),
                f"is longer than the whole boot may take ({boot.deadlines.total:g} s)",
                "at most boot.deadlines.total",
            )
    if boot.retry.delay > boot.retry.max_delay:
        broken(
            ("boot.retry.delay", "boot.retry.max_delay"),
            f"the first delay is longer than the longest ({boot.retry.max_delay:g} s)",
            "at most boot.retry.max_delay",
        )
    if boot.health.deep_interval < boot.health.interval:
        broken(
            ("boot.health.deep_interval", "boot.health.interval"),
            "deep checks would run more often than shallow ones",
            "at least boot.health.interval",
        )

    resources = settings.resources
    if resources.min_free_disk_bytes > resources.min_disk_bytes:
        broken(
            ("resources.min_free_disk_bytes", "resources.min_disk_bytes"),
            "more must be free than the disk must have in all",
            "at most resources.min_disk_bytes",
        )

    network = settings.network
    if network.ping_interval >= network.idle_timeout:
        broken(
            ("network.ping_interval", "network.idle_timeout"),
            f"a session would be closed as idle ({network.idle_timeout:g} s) before its next ping",
            "less than network.idle_timeout",
        )
    if network.max_connections_per_peer > network.max_connections:
        broken(
            ("network.max_connections_per_peer", "network.max_connections"),
            "one peer may not have more than all together",
            "at most network.max_connections",
        )
    addresses = [("network.seeds", seed) for seed in network.seeds]
    if network.advertise_address is not None:
        addresses.append(("network.advertise_address", network.advertise_address))
    for key, address in addresses:
        if not _is_host_and_port(address):
            broken(
                (key,),
                f"{address!r} is not host:port",
                "a name or address and a port, such as node-2:7401 or [2001:db8::2]:7401",
            )
    for section, listener in _listeners(settings).items():
        address = listener.listen_address or ""
        host, colon, port = address.rpartition(":")
        if colon and port.isdecimal() and (":" not in host or host.endswith("]")):
            broken(
                (f"{section}.listen_address",),
                f"{address!r} is an address and a port",
                f"the address alone; the port belongs in {section}.port",
            )
    _broken_amst(settings, broken)
    problems += _shared_ports(settings, merged)
    return problems


def _broken_amst(settings: Settings, broken: Callable[[tuple[str, ...], str, str], None]) -> None:
    amst = settings.dwcp.amst
    if amst.encryption == "off" and settings.dwcp.mode != "datacenter":
        broken(
            ("dwcp.amst.encryption", "dwcp.mode"),
            f"payload would cross a network of mode {settings.dwcp.mode} in the clear",
            "off only with dwcp.mode datacenter, else on",
        )
    for directory in amst.directories:
        if not directory.startswith("/") or "\0" in directory or ".." in directory.split("/"):
            broken(
                ("dwcp.amst.directories",),
                f"{directory!r} is not an absolute directory",
                "absolute paths without .., such as /srv/images",
            )
    if amst.streams_min > amst.streams_max:
        broken(
            ("dwcp.amst.streams_min", "dwcp.amst.streams_max"),
            f"the fewest streams are more than the most ({amst.streams_max})",
            "at most dwcp.amst.streams_max",
        )
    elif amst.streams_start and not amst.streams_min <= amst.streams_start <= amst.streams_max:
        broken(
            ("dwcp.amst.streams_start", "dwcp.amst.streams_min", "dwcp.amst.streams_max"),
            f"is outside what a link may have, {amst.streams_min} to {amst.streams_max}",
            "0, or from dwcp.amst.streams_min to dwcp.amst.streams_max",
        )
    if amst.window_bytes < _WINDOW_CHUNKS * amst.chunk_bytes:
        broken(
            ("dwcp.amst.window_bytes", "dwcp.amst.chunk_bytes"),
            f"holds fewer than {_WINDOW_CHUNKS} chunks of {amst.chunk_bytes} bytes",
            f"at least {_WINDOW_CHUNKS} times dwcp.amst.chunk_bytes",
        )


def _listeners(settings: Settings) -> dict[str, Any]:
    """Every section with a listener of its own, in the order they bind."""
    return {
        "api": settings.api,
        "network": settings.network,
        "monitoring": settings.monitoring,
        "dwcp.amst": settings.dwcp.amst,
    }


def _is_host_and_port(text: str) -> bool:
    host, _, port = text.rpartition(":")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return (
        bool(inner)
        and (inner != host or ":" not in host)
        and not set(host) & set("/@ \t")
        and port.isascii()
        and port.isdigit()
        and len(port) <= 5
        and 0 < int(port) < 65536
    )


def _shared_ports(settings: Settings, merged: Layer) -> list[Problem]:
    """Two listeners on one address and port: the second could never bind."""
    wildcard = ("0.0.0.0", "::", "")
    listeners = [
        (section, listener.listen_address or settings.network.listen_address, listener.port)
        for section, listener in _listeners(settings).items()
    ]
    problems = []
    for index, (section, address, port) in enumerate(listeners):
        for other, other_address, other_port in listeners[:index]:
            if port == 0 or port != other_port:
                continue
            if address == other_address or address in wildcard or other_address in wildcard:
                mine, theirs = (*section.split("."), "port"), (other, "port")
                path = mine if mine in merged or theirs not in merged else theirs
                entry = merged.get(path)
                problems.append(
                    Problem(
                        ".".join(path),
                        entry.source if entry else DEFAULT,
                        f"{section}.port and {other}.port are both {port} on one address",
                        "a different port for each, or 0 for a free one",
                    )
                )
    return problems
