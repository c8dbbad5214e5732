from __future__ import annotations

from docs.generate import boot_graph


def test_the_page_shows_the_graph_of_a_real_node() -> None:
    assert boot_graph.PAGE.read_text() == boot_graph.rendered()
