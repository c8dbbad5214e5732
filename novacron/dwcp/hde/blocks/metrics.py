"""Figures of deduplication. No label is a tenant: a metric would tell everybody who there is."""

from __future__ import annotations

from typing import Final

from novacron.observe import Counter, Gauge

INDEXED: Final = Counter(
    "novacron_dwcp_blocks_indexed_total", "Blocks of received files that were indexed."
)
INDEX_BYTES: Final = Gauge(
    "novacron_dwcp_block_index_bytes", "What the indexes of blocks take on disk."
)
DEDUPLICATED: Final = Counter(
    "novacron_dwcp_deduplicated_bytes_total",
    "Content that was not moved because the receiver held it in other files.",
    ("direction",),
)
