"""How ``novacron transfers show`` tells what was encoded, and what a transfer's line says of it."""

from __future__ import annotations

from novacron.cli.encoding import SHOWN_DECISIONS, encoding
from novacron.cli.progress import details, ratio, summary
from novacron.dwcp.hde.report import NOTHING, Coded, CodingReport, Decision, StageSeconds
from tests.api.dwcp_stand_in import transfer_view

MIB = 1 << 20
ID = "ab540000" * 4
WHY = "the link is what bounds: fewer bytes are faster"
REPORT = CodingReport(
    zero=Coded(10, 10 * MIB, 0),
    raw=Coded(1, MIB, MIB + 4),
    zstd=Coded(20, 20 * MIB, 5 * MIB),
    delta=Coded(2, 2 * MIB, MIB // 64),
    refused_bases=3,
    budget_chunks=4,
    cpu_seconds=StageSeconds(read=0.05, encode=1.25),
    decisions=(Decision(1_700_000_000.0, "raw", "zstd 1", WHY, 12 * MIB, 300 * MIB, 4.02),),
)


def test_each_way_is_a_row_and_they_add_up() -> None:
    lines = encoding(REPORT.as_json()).splitlines()
    rows = {" ".join(line.split()) for line in lines}
    assert "ENCODING CHUNKS CONTENT ON THE WIRE RATIO" in rows
    assert "zeros 10 10.0 MiB 0 B -" in rows
    assert "zstd 20 20.0 MiB 5.0 MiB 4.0:1" in rows
    assert "in all 31 31.0 MiB 6.0 MiB 3.5:1" in rows
    assert "as differences 2 2.0 MiB 16.0 KiB 128:1" in rows
    assert not any(row.startswith("lz4") for row in rows)


def test_what_was_refused_what_the_cpu_was_and_why_the_codec_changed_is_said() -> None:
    text = encoding(REPORT.as_json())
    assert "3 chunks were sent whole: the receiver held something else" in text
    assert "4 chunks were sent as they are: the CPU for encoding was used up [dwcp.hde.cpu]" in text
    assert "CPU: 1.3 s (read 50 ms, encode 1.2 s)" in text
    assert f"raw to zstd 1: {WHY} (link 12.0 MiB/s, a thread encodes 300 MiB/s, 4.0:1)" in text


def test_the_last_decisions_are_shown() -> None:
    many = CodingReport(
        raw=Coded(1, 1, 5),
        decisions=tuple(Decision(float(n), "raw", f"zstd {n}", WHY, 0, 0, 0.0) for n in range(20)),
    )
    text = encoding(many.as_json())
    assert text.count(" to zstd ") == SHOWN_DECISIONS
    assert text.endswith(f"raw to zstd 19: {WHY}")


def test_nothing_but_zeros_has_no_ratio_and_nothing_at_all_no_table() -> None:
    zeros = encoding(CodingReport(zero=Coded(1, MIB, 0)).as_json())
    assert "in all    1       1.0 MiB  0 B          -" in zeros
    assert encoding(NOTHING.as_json()) == "encoding: nothing was encoded yet"


def test_what_another_node_says_cannot_steer_a_terminal() -> None:
    evil = Decision(0.0, "\x1b[2J", "raw", "a\nb", 0, 0, 0.0)
    text = encoding(CodingReport(raw=Coded(1, 1, 5), decisions=(evil,)).as_json())
    assert "\x1b" not in text
    assert "a\nb" not in text


def test_a_line_says_how_fast_the_wire_is_and_what_was_saved() -> None:
    view = transfer_view(ID, wire_rate_bps=4.0 * MIB, coding=REPORT)
    assert "513 MiB on the wire at 4.0 MiB/s (3.5:1)" in details(view)
    done = transfer_view(ID, state="done", coding=REPORT, finished_at=1_700_000_016.5)
    assert "513 MiB on the wire (3.5:1)" in summary(done)
    raw = CodingReport(raw=Coded(1, MIB, MIB + 4))
    assert "(1.0:1)" not in summary(transfer_view(ID, coding=raw, state="done"))


def test_a_ratio_is_read_at_a_glance() -> None:
    assert [ratio(value) for value in (0.97, 3.44, 99.94, 118.4)] == [
        "1.0:1", "3.4:1", "99.9:1", "118:1",
    ]  # fmt: skip
