"""Text as services write it into their logs, as much of it as is wanted."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Final

_EPOCH: Final = 1_750_000_000
"""When the log begins: a fixed time, so that the same seed is the same text."""
_BLOCK: Final = 1 << 20
_HOSTS: Final = [f"node-{rack:02d}-{unit:02d}" for rack in range(8) for unit in range(12)]
_AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:126.0) Gecko/20100101 Firefox/126.0",
    "curl/8.5.0",
    "Prometheus/2.51.0",
    "Go-http-client/2.0",
)
_PATHS: Final = (
    "/api/v1/instances",
    "/api/v1/instances/{0:08x}/console",
    "/api/v1/volumes/{0:08x}",
    "/api/v1/volumes/{0:08x}/attachments?limit=50",
    "/metrics",
    "/healthz",
    "/static/js/main.{0:08x}.js",
)
_MESSAGES: Final = (
    "lease renewed for instance {0:08x} generation {1}",
    "slow query: {1} ms, SELECT id, state, owner FROM instances WHERE zone = 'z{2}' AND state = 3",
    "scheduling volume {0:08x} of {1} MiB to pool nvme-{2}",
    "connection from 10.{2}.{3}.{4}:{1} closed after {1} ms: peer sent FIN",
    "snapshot {0:08x} finished, {1} extents in {2}.{3:03d} s",
    "retrying request {0:08x} to store-{2}, attempt {4}: deadline of {3} ms exceeded",
)
_LEVELS: Final = ("INFO", "INFO", "INFO", "INFO", "DEBUG", "DEBUG", "WARNING", "ERROR")
_STATES: Final = (200, 200, 200, 200, 201, 204, 304, 404, 503)


def log_text(seed: int) -> Iterator[bytes]:
    """Blocks of 1 MiB that are one text when joined: web server, services with fields, system log."""
    draw = random.Random(f"logs {seed}")
    now = float(_EPOCH)
    rest = b""
    while True:
        lines: list[str] = []
        length = len(rest)
        while length < _BLOCK:
            now += draw.random() * 0.02
            line = _line(draw, now)
            lines.append(line)
            length += len(line)
        text = rest + "".join(lines).encode()
        rest = text[_BLOCK:]
        yield text[:_BLOCK]


def _line(draw: random.Random, now: float) -> str:
    # One draw of many bits instead of many draws: a quarter of a gigabyte has two million lines.
    bits = draw.getrandbits(96)
    number, count = bits & 0xFFFFFFFF, bits >> 32 & 0xFFF
    a, b, c = bits >> 44 & 0xF, bits >> 48 & 0xFF, bits >> 56 & 0x3F
    host = _HOSTS[(bits >> 62) % len(_HOSTS)]
    kind = bits >> 70 & 7
    if kind < 3:
        path = _PATHS[(bits >> 73) % len(_PATHS)].format(number)
        agent = _AGENTS[(bits >> 80) % len(_AGENTS)]
        state = _STATES[(bits >> 84) % len(_STATES)]
        return (
            f"10.{a}.{b}.{c} - - [{_stamp(now, '%d/%b/%Y:%H:%M:%S')} +0000] "
            f'"GET {path} HTTP/1.1" {state} {number % 50_000} "-" "{agent}" 0.{count % 1000:03d}\n'
        )
    level = _LEVELS[bits >> 76 & 7]
    message = _MESSAGES[(bits >> 80) % len(_MESSAGES)].format(number, count, a, b, c)
    if kind < 6:
        return (
            f'{{"ts":"{_stamp(now, "%Y-%m-%dT%H:%M:%S")}.{count % 1000:03d}Z","level":"{level}",'
            f'"host":"{host}","pid":{1000 + b},"trace":"{bits & (1 << 64) - 1:016x}",'
            f'"msg":"{message}"}}\n'
        )
    return f"{_stamp(now, '%b %d %H:%M:%S')} {host} novacron[{1000 + b}]: {level} {message}\n"


_stamps: dict[tuple[int, str], str] = {}


def _stamp(now: float, form: str) -> str:
    second = int(now)
    found = _stamps.get((second, form))
    if found is None:
        # Of one second at a time: the text only goes forward.
        if len(_stamps) > 64:
            _stamps.clear()
        found = _stamps[second, form] = time.strftime(form, time.gmtime(second))
    return found
