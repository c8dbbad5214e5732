"""What programs and people are told about transfers by two real nodes."""

from __future__ import annotations

import json
from pathlib import Path

from novacron.dwcp.amst.transfer import TransferView
from novacron.units import MIB
from tests.integration.node_process import ask
from tests.integration.two_nodes import Pair, digest, sparse_image


def test_everything_is_told_of_a_transfer_its_links_and_who_changed_it(
    nodes: Pair, tmp_path: Path
) -> None:
    one, two = nodes
    image = sparse_image(tmp_path / "disk.img", 64 * MIB, (0, 24 * MIB))
    id = one.run("send", str(image), f"{two.peer}:in/", "--limit", "4M", "--detach").strip()
    one.wait_transfer(lambda view: view["bytes_moved"] > 2 * MIB)
    shown = json.loads(one.run("transfers", "show", id[:6], "--json"))
    assert set(shown) == set(TransferView._fields)
    assert (shown["direction"], shown["role"], shown["peer"]) == ("send", "sender", two.id)
    assert (shown["state"], shown["protocol"], shown["mover"]) == ("moving", 3, "tcp")
    assert (shown["bytes_total"], shown["files_total"]) == (64 * MIB, 1)
    assert shown["limit_bps"] == 4_000_000
    assert shown["streams"] >= 1
    assert shown["eta_seconds"] is not None
    assert shown["errors"] == []
    [link] = one.json("dwcp")["links"]
    assert link["peer"] == two.id
    assert link["streams"]
    assert all(stream["rtt_us"] > 0 for stream in link["streams"])

    one.run("transfers", "pause", id)
    one.run("transfers", "limit", id, "none")
    one.run("transfers", "resume", id)
    lines = one.run("transfers", "watch", id, "--json").splitlines()
    assert json.loads(lines[-1])["state"] == "done"
    assert digest(two.transfers / "in" / "disk.img") == digest(image)
    [done] = one.json("transfers", "list")["transfers"]
    assert (done["bytes_done"], done["eta_seconds"], done["files_done"]) == (64 * MIB, None, 1)
    assert 24 * MIB <= done["bytes_moved"] < done["bytes_total"]
    assert done["bytes_moved"] + done["bytes_zero"] == 64 * MIB
    assert done["wire_bytes"] >= done["bytes_moved"]

    for node, direction in ((one, "sent"), (two, "received")):
        _, text = ask(f"127.0.0.1:{node.ports['monitoring']}", "/metrics")
        values = dict(
            line.rsplit(" ", 1)
            for line in text.decode().splitlines()
            if line.startswith("novacron_dwcp")
        )
        moved = float(values[f'novacron_dwcp_transfer_bytes_total{{direction="{direction}"}}'])
        assert moved >= 24 * MIB
        assert float(values['novacron_dwcp_links{protocol="3"}']) == 1
        assert float(values["novacron_dwcp_bad_frames_total"]) == 0

    records = one.json("audit", "show")["records"]
    changes = [r["action"] for r in records if r["target"] == id and r["outcome"] == "success"]
    assert changes == [f"transfer.{what}" for what in ("start", "pause", "limit", "resume")]
