"""Ports and addresses."""

from __future__ import annotations

import os
import socket

from tests.integration.failing_node import Cause, Scene, Words


def _taken(scene: Scene, key: str) -> Words:
    held = scene.stack.enter_context(socket.socket())
    held.bind(("127.0.0.1", 0))
    held.listen()
    port = held.getsockname()[1]
    scene.settings[key] = str(port)
    return {"port": port, "holder": f"pid {os.getpid()}"}


def rest_port(scene: Scene) -> Words:
    return _taken(scene, "api.port")


def peer_port(scene: Scene) -> Words:
    return _taken(scene, "network.port")


def metrics_port(scene: Scene) -> Words:
    return _taken(scene, "monitoring.port")


def data_port(scene: Scene) -> Words:
    return _taken(scene, "dwcp.amst.port")


def several_ports(scene: Scene) -> Words:
    first, second = _taken(scene, "api.port"), _taken(scene, "network.port")
    return {"first": first["port"], "second": second["port"], "holder": first["holder"]}


def same_port(scene: Scene) -> None:
    scene.settings |= {"api.port": "47123", "network.port": "47123"}


def address_elsewhere(scene: Scene) -> None:
    # TEST-NET-1 of RFC 5737: no host has it.
    scene.settings["api.listen_address"] = "192.0.2.1"


def address_is_no_address(scene: Scene) -> None:
    # A name ending in .invalid exists nowhere (RFC 6761).
    scene.settings["network.listen_address"] = "node-7.invalid"


def port_in_address(scene: Scene) -> None:
    scene.settings["api.listen_address"] = "0.0.0.0:7400"


def privileged_port(scene: Scene) -> None:
    scene.as_nobody()
    scene.settings["api.port"] = "443"


CAUSES = (
    Cause(
        "the REST port is taken",
        rest_port,
        1,
        "cannot listen on 127.0.0.1:{port}",
        "the port is in use by {holder}",
        "stop that process, or set api.port to another port (0 takes a free one)",
        "api.port",
    ),
    Cause(
        "the port for peers is taken",
        peer_port,
        1,
        "cannot listen on 127.0.0.1:{port}",
        "the port is in use by {holder}",
        "stop that process, or set network.port to another port",
        "network.port",
    ),
    Cause(
        "the metrics port is taken",
        metrics_port,
        3,
        "cannot listen on 127.0.0.1:{port}",
        "the port is in use by {holder}",
        "stop that process, or set monitoring.port to another port",
        "monitoring.port",
    ),
    Cause(
        "the port for data is taken",
        data_port,
        3,
        "cannot listen on 127.0.0.1:{port}",
        "the port is in use by {holder}",
        "stop that process, or set dwcp.amst.port to another port",
        "dwcp.amst.port",
    ),
    Cause(
        "two ports are taken",
        several_ports,
        1,
        "cannot listen on 127.0.0.1:{first}; cannot listen on 127.0.0.1:{second}",
        "the port is in use by {holder}",
        "set api.port to another port",
        "api.port, network.port",
    ),
    Cause(
        "two listeners want one port",
        same_port,
        78,
        "the configuration is invalid",
        "network.port and api.port are both 47123 on one address; accepted: a different port for "
        "each, or 0 for a free one",
        "correct it",
        "network.port",
    ),
    Cause(
        "a port in the address",
        port_in_address,
        78,
        "the configuration is invalid",
        "'0.0.0.0:7400' is an address and a port; accepted: the address alone; the port belongs in "
        "api.port",
        "correct it",
        "api.listen_address",
    ),
    Cause(
        "the address is another host's",
        address_elsewhere,
        1,
        "cannot listen on 192.0.2.1:0",
        "no network interface of this host has the address 192.0.2.1",
        "set api.listen_address to an address of this host (`ip address` lists them)",
        "api.listen_address",
    ),
    Cause(
        "the listen address is no address",
        address_is_no_address,
        1,
        "cannot listen on node-7.invalid:0",
        "'node-7.invalid' is neither an address nor a name that can be looked up",
        "set network.listen_address to an address of this host",
        "network.listen_address",
    ),
    Cause(
        "the port is for root alone",
        privileged_port,
        1,
        "cannot listen on 127.0.0.1:443",
        "may not bind port 443",
        "set api.port to 1024 or more, or grant the capability",
        "api.port",
    ),
)
